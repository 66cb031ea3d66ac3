/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * Every range and layout computation of the driver, and nothing else.
 *
 * This header includes nothing, so that the same code is compiled into the
 * module and into userspace tests. The includer provides u8, u32, u64, bool
 * and the errno names. All sizes, offsets and addresses are in bytes.
 *
 * GPU memory is rarely a power of two while a PCI BAR always is, hence two
 * sizes for each region: "actual" is the memory that exists, "reported" is
 * the power of two that VFIO and the BAR register show. The bytes between
 * them are the hole: they read as 0xff and writes to them are dropped.
 */
#ifndef NVGRACE_REGION_H
#define NVGRACE_REGION_H

/* Carved out of the memory when the GPU has the MIG hardware bug. */
#define NVGRACE_RESMEM_MIN	(1024ULL << 20)

/*
 * GPU firmware, this driver and the guest's driver all round usemem down to
 * this: it cannot be changed on one side only.
 */
#define NVGRACE_USEMEM_ALIGN	(512ULL << 20)

/* A VFIO region offset leaves this many bits below the region index. */
#define NVGRACE_REGION_BITS	40

#define NVGRACE_MAX_REGIONS	2

/* Config space: six 32-bit BAR registers; an emulated BAR takes two of them. */
#define NVGRACE_BAR_BASE	0x10
#define NVGRACE_BAR_BYTES	8
/* 64-bit, prefetchable memory BAR. */
#define NVGRACE_BAR_TYPE	0xcULL

/**
 * struct nvgrace_region - one emulated BAR
 * @base: physical address of its first byte
 * @actual: bytes of memory behind it
 * @mappable: @actual rounded down to whole pages
 * @reported: size that VFIO and the BAR register show, a power of two
 * @index: VFIO region index, which is the number of its first BAR register
 * @write_combined: mapped write-combined; cacheable otherwise
 */
struct nvgrace_region {
	u64 base;
	u64 actual;
	u64 mappable;
	u64 reported;
	u32 index;
	bool write_combined;
};

struct nvgrace_layout {
	struct nvgrace_region region[NVGRACE_MAX_REGIONS];
	u32 count;
};

/* How an access is served: @memory bytes first, then @hole bytes. */
struct nvgrace_span {
	u64 memory;
	u64 hole;
};

static inline u64 nvgrace_min(u64 a, u64 b)
{
	return a < b ? a : b;
}

/* The smallest power of two that is not below @size; 0 where u64 has none. */
static inline u64 nvgrace_round_up_pow2(u64 size)
{
	u64 pow = 1;

	while (pow && pow < size)
		pow <<= 1;
	return pow;
}

/*
 * Fills @region. @shown is the size that @reported is rounded up from, not
 * below @actual. -EINVAL: no whole page, or a base inside of a page;
 * -EOVERFLOW: more than a VFIO region offset can address.
 */
static inline int nvgrace_region_init(struct nvgrace_region *region, u32 index,
				      u64 base, u64 actual, u64 shown,
				      u64 page_size)
{
	region->index = index;
	region->base = base;
	region->actual = actual;
	region->mappable = actual & ~(page_size - 1);
	region->reported = nvgrace_round_up_pow2(shown);
	region->write_combined = false;

	if (!region->mappable || (base & (page_size - 1)))
		return -EINVAL;
	if (!region->reported ||
	    region->reported > 1ULL << NVGRACE_REGION_BITS)
		return -EOVERFLOW;
	return 0;
}

/* -EINVAL when [@base, @base + @length) wraps around or is empty. */
static inline int nvgrace_check_range(u64 base, u64 length)
{
	u64 last;

	if (!length || __builtin_add_overflow(base, length - 1, &last))
		return -EINVAL;
	return 0;
}

/*
 * The layout of mainline since v6.9: usemem as BAR4/5, and with the MIG
 * hardware bug the rest of the memory, resmem, as BAR2/3.
 * -EOVERFLOW: too small for the carve-out, or too big for a region;
 * -EINVAL: nothing is left for usemem, or the range is unusable.
 */
static inline int nvgrace_layout_mainline(struct nvgrace_layout *layout,
					  u64 base, u64 length, u64 page_size,
					  bool mig_bug)
{
	u64 shown = length, usemem = length;
	int ret;

	layout->count = 0;
	ret = nvgrace_check_range(base, length);
	if (ret)
		return ret;

	if (mig_bug) {
		if (length < NVGRACE_RESMEM_MIN)
			return -EOVERFLOW;
		/*
		 * usemem's reported size is taken before usemem is rounded
		 * down. That can double the BAR (65.25 GiB of memory gives
		 * 64 GiB in a BAR of 128 GiB), and guests see it: keep it.
		 */
		shown = length - NVGRACE_RESMEM_MIN;
		usemem = shown & ~(NVGRACE_USEMEM_ALIGN - 1);
	}

	ret = nvgrace_region_init(&layout->region[0], 4, base, usemem, shown,
				  page_size);
	if (ret)
		return ret;
	layout->count = 1;
	if (!mig_bug)
		return 0;

	ret = nvgrace_region_init(&layout->region[1], 2, base + usemem,
				  length - usemem, length - usemem, page_size);
	if (ret)
		return ret;
	layout->region[1].write_combined = true;
	layout->count = 2;
	return 0;
}

/* The layout of patch v10: the whole memory as BAR2/3. Errors as above. */
static inline int nvgrace_layout_bar2(struct nvgrace_layout *layout, u64 base,
				      u64 length, u64 page_size)
{
	int ret;

	layout->count = 0;
	ret = nvgrace_check_range(base, length);
	if (!ret)
		ret = nvgrace_region_init(&layout->region[0], 2, base, length,
					  length, page_size);
	if (!ret)
		layout->count = 1;
	return ret;
}

/*
 * Splits an access of @count bytes at @offset. It is clipped at the reported
 * size; one that begins at or after it is -EINVAL.
 */
static inline int nvgrace_span(const struct nvgrace_region *region, u64 offset,
			       u64 count, struct nvgrace_span *span)
{
	if (offset >= region->reported)
		return -EINVAL;
	count = nvgrace_min(count, region->reported - offset);

	span->memory = 0;
	if (offset < region->actual)
		span->memory = nvgrace_min(count, region->actual - offset);
	span->hole = count - span->memory;
	return 0;
}

/*
 * May [@offset, @offset + @length) be mapped? -EINVAL when it is empty or ends
 * after the last whole page of memory, -EOVERFLOW when a sum wraps. The last
 * address may be the highest there is.
 */
static inline int nvgrace_check_mmap(const struct nvgrace_region *region,
				     u64 offset, u64 length)
{
	u64 end, last;

	if (!length)
		return -EINVAL;
	if (__builtin_add_overflow(offset, length, &end) ||
	    __builtin_add_overflow(region->base, end - 1, &last))
		return -EOVERFLOW;
	return end > region->mappable ? -EINVAL : 0;
}

/* Config space position of a region's BAR registers. */
static inline u64 nvgrace_bar_position(const struct nvgrace_region *region)
{
	return NVGRACE_BAR_BASE + 4 * (u64)region->index;
}

/* What the BAR registers read after @stored was written to them. */
static inline u64 nvgrace_bar_value(const struct nvgrace_region *region,
				    u64 stored)
{
	return (stored & ~(region->reported - 1)) | NVGRACE_BAR_TYPE;
}

/* Copies @count bytes of the little-endian register @value from byte @first. */
static inline void nvgrace_bar_get(u64 value, u32 first, u8 *bytes, u32 count)
{
	u32 i;

	for (i = 0; i < count; i++)
		bytes[i] = (u8)(value >> (8 * (first + i)));
}

/* @stored with @count bytes replaced, beginning with byte @first. */
static inline u64 nvgrace_bar_set(u64 stored, u32 first, const u8 *bytes,
				  u32 count)
{
	u32 i;

	for (i = 0; i < count; i++) {
		stored &= ~(0xffULL << (8 * (first + i)));
		stored |= (u64)bytes[i] << (8 * (first + i));
	}
	return stored;
}

/*
 * The first piece of the config access [@position, @position + @count) that
 * lies either within one emulated BAR, whose number in @layout is then put
 * into @which, or outside of all of them: @which is @layout->count. Returns
 * the length of the piece, never more than @count and, with a @count that is
 * not 0, never 0.
 */
static inline u64 nvgrace_config_piece(const struct nvgrace_layout *layout,
				       u64 position, u64 count, u32 *which)
{
	u32 i;

	*which = layout->count;
	for (i = 0; i < layout->count; i++) {
		u64 bar = nvgrace_bar_position(&layout->region[i]);

		if (position >= bar + NVGRACE_BAR_BYTES)
			continue;
		if (position < bar) {
			count = nvgrace_min(count, bar - position);
			continue;
		}
		*which = i;
		return nvgrace_min(count, bar + NVGRACE_BAR_BYTES - position);
	}
	return count;
}

#endif /* NVGRACE_REGION_H */
