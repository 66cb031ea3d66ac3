// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * Layouts, for every base and length and all page sizes of arm64.
 */
#include "proof.h"

static bool wraps_or_empty(u64 base, u64 length)
{
	return !length || (u128)base + length > ADDRESSES;
}

void proof_round_up_pow2(void)
{
	u64 size = nondet_u64(), pow = nvgrace_round_up_pow2(size);

	if (size > 1ULL << 63) {
		PROVE(!pow, "0 where u64 has no such power");
		REACHED("no such power");
		return;
	}
	PROVE(is_pow2(pow), "a power of two");
	PROVE(pow >= size, "not below the size");
	PROVE(pow == 1 || pow / 2 < size, "the smallest one");
	REACHED("a power");
}

void proof_check_range(void)
{
	u64 base = nondet_u64(), length = nondet_u64();
	int ret = nvgrace_check_range(base, length);

	PROVE(ret == (wraps_or_empty(base, length) ? -EINVAL : 0),
	      "refused exactly when empty or wrapping");
	if (ret)
		REACHED("refused");
	else
		REACHED("accepted");
}

/* The length of usemem; 0 where there is none. */
static u64 expected_usemem(u64 length, bool mig_bug)
{
	if (!mig_bug)
		return length;
	return length < GIB ? 0 : (length - GIB) / (512 * MIB) * (512 * MIB);
}

/* The errors as nvgrace_layout_mainline() documents them, in their order. */
static int expected_error(u64 base, u64 length, bool mig_bug)
{
	u64 usemem = expected_usemem(length, mig_bug);
	u64 carved = mig_bug ? GIB : 0;

	if (wraps_or_empty(base, length))
		return -EINVAL;
	if (length < carved)
		return -EOVERFLOW;
	if (usemem < PAGE_SIZE || !whole_pages(base))
		return -EINVAL;
	return length - carved > REGION_LIMIT ? -EOVERFLOW : 0;
}

static void prove_regions(const struct nvgrace_layout *layout, u64 base,
			  u64 length)
{
	u64 covered = 0;
	u32 i;

	PROVE(layout->count && layout->count <= NVGRACE_MAX_REGIONS, "count");
	for (i = 0; i < layout->count; i++) {
		const struct nvgrace_region *region = &layout->region[i];

		PROVE(is_region(region), "a region");
		PROVE(region->base == base + covered,
		      "begins where the one before ends");
		PROVE(nvgrace_bar_position(region) % 8 == 0 &&
		      nvgrace_bar_position(region) >= 0x18 &&
		      nvgrace_bar_position(region) <= 0x20,
		      "its registers are BAR2/3 or BAR4/5");
		covered += region->actual;
	}
	PROVE(covered == length, "the regions are the whole memory");
}

void proof_layout_mainline(void)
{
	u64 base = nondet_u64(), length = nondet_u64();
	bool mig_bug = nondet_bool();
	u64 usemem = expected_usemem(length, mig_bug);
	struct nvgrace_layout layout;
	int ret;

	ret = nvgrace_layout_mainline(&layout, base, length, PAGE_SIZE,
				      mig_bug);
	PROVE(ret == expected_error(base, length, mig_bug),
	      "errors as documented");
	if (ret) {
		PROVE(!layout.count, "no regions after an error");
		REACHED("an error");
		return;
	}

	prove_regions(&layout, base, length);
	PROVE(layout.count == (mig_bug ? 2 : 1), "resmem with the bug only");
	PROVE(layout.region[0].index == 4, "usemem is region 4");
	PROVE(layout.region[0].actual == usemem, "usemem's length");
	PROVE(!layout.region[0].write_combined, "usemem is cacheable");
	if (!mig_bug) {
		REACHED("without the bug");
		return;
	}
	PROVE(usemem % (512 * MIB) == 0, "usemem is a multiple of 512 MiB");
	PROVE(layout.region[1].index == 2, "resmem is region 2");
	PROVE(layout.region[1].actual >= GIB, "resmem has its carve-out");
	PROVE(layout.region[1].actual - GIB < 512 * MIB, "and no more");
	PROVE(layout.region[1].write_combined, "resmem is write-combined");
	REACHED("with the bug");
}

/* usemem's reported size is rounded up from before its round-down. */
void proof_layout_mainline_reported(void)
{
	u64 base = nondet_u64(), length = nondet_u64(), shown;
	bool mig_bug = nondet_bool();
	struct nvgrace_layout layout;
	u64 reported;

	if (nvgrace_layout_mainline(&layout, base, length, PAGE_SIZE, mig_bug))
		return;
	shown = mig_bug ? length - GIB : length;
	reported = layout.region[0].reported;
	PROVE(reported >= shown && reported / 2 < shown, "usemem's");
	REACHED("usemem");
	if (!mig_bug)
		return;
	shown = layout.region[1].actual;
	reported = layout.region[1].reported;
	PROVE(reported >= shown && reported / 2 < shown, "resmem's");
	REACHED("resmem");
}

void proof_layout_bar2(void)
{
	u64 base = nondet_u64(), length = nondet_u64();
	const struct nvgrace_region *region;
	struct nvgrace_layout layout;
	int ret;

	ret = nvgrace_layout_bar2(&layout, base, length, PAGE_SIZE);
	PROVE(ret == expected_error(base, length, false),
	      "errors as documented");
	if (ret) {
		PROVE(!layout.count, "no regions after an error");
		REACHED("an error");
		return;
	}

	prove_regions(&layout, base, length);
	region = &layout.region[0];
	PROVE(layout.count == 1 && region->index == 2, "region 2 alone");
	PROVE(region->reported / 2 < length, "reported is not too large");
	PROVE(!region->write_combined, "cacheable");
	REACHED("a layout");
}
