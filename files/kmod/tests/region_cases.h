/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * What region.h has to give: tables for the userspace tests and for the KUnit
 * suite. The includer provides region.h and what that needs.
 */
#ifndef NVGRACE_REGION_CASES_H
#define NVGRACE_REGION_CASES_H

#define KIB		1024ULL
#define MIB		(KIB * KIB)
#define GIB		(KIB * MIB)
#define TIB		(KIB * GIB)
#define PAGE		4096ULL
#define BASE		0x420000000000ULL
#define HIGHEST		(~0ULL)

static const struct pow2_case {
	const char *what;
	u64 size, pow;
} pow2_cases[] = {
	{ "1", 1, 1 },
	{ "2", 2, 2 },
	{ "3", 3, 4 },
	{ "95 GiB", 95 * GIB, 128 * GIB },
	{ "128 GiB", 128 * GIB, 128 * GIB },
	{ "128 GiB + 1", 128 * GIB + 1, 256 * GIB },
	{ "the highest power", 1ULL << 63, 1ULL << 63 },
	{ "above the highest power", (1ULL << 63) + 1, 0 },
	{ "the highest number", HIGHEST, 0 },
};

/* Without the MIG bug there is no resmem. */
static const struct mainline_case {
	const char *what;
	u64 length;
	bool mig_bug;
	int ret;
	u64 usemem, usemem_reported;
	u64 resmem, resmem_reported;
} mainline_cases[] = {
	{ "GH200 96 GiB", 96 * GIB, true, 0, 95 * GIB, 128 * GIB, GIB, GIB },
	{ "GH200 144 GiB", 144 * GIB, true, 0, 143 * GIB, 256 * GIB, GIB, GIB },
	{ "GB200 186 GiB", 186 * GIB, false, 0, 186 * GIB, 256 * GIB, 0, 0 },
	{ "GB300 279 GiB", 279 * GIB, false, 0, 279 * GIB, 512 * GIB, 0, 0 },
	{ "reported before the round-down", 65 * GIB + 256 * MIB, true, 0,
	  64 * GIB, 128 * GIB, GIB + 256 * MIB, 2 * GIB },
	{ "usemem a power of two", 65 * GIB, true, 0, 64 * GIB, 64 * GIB, GIB,
	  GIB },
	{ "emulated host, 2.5 GiB", 2560 * MIB, true, 0, 1536 * MIB, 2 * GIB,
	  GIB, GIB },
	{ "emulated host, 2.75 GiB", 2816 * MIB, true, 0, 1536 * MIB, 2 * GIB,
	  1280 * MIB, 2 * GIB },
	{ "smallest with the bug", 1536 * MIB, true, 0, 512 * MIB, 512 * MIB,
	  GIB, GIB },
	{ "nothing left for usemem", 1536 * MIB - 1, true, -EINVAL, 0, 0, 0, 0 },
	{ "only the carve-out", GIB, true, -EINVAL, 0, 0, 0, 0 },
	{ "below the carve-out", GIB - 1, true, -EOVERFLOW, 0, 0, 0, 0 },
	{ "below the carve-out, no bug", GIB - PAGE, false, 0, GIB - PAGE, GIB,
	  0, 0 },
	{ "no whole number of pages", 3 * GIB + 1000, false, 0, 3 * GIB + 1000,
	  4 * GIB, 0, 0 },
	{ "less than a page", PAGE - 1, false, -EINVAL, 0, 0, 0, 0 },
	{ "nothing", 0, false, -EINVAL, 0, 0, 0, 0 },
	{ "the largest region", TIB, false, 0, TIB, TIB, 0, 0 },
	{ "too large for a region", TIB + 1, false, -EOVERFLOW, 0, 0, 0, 0 },
	{ "no power of two above", (1ULL << 63) + 1, false, -EOVERFLOW, 0, 0, 0,
	  0 },
};

static const struct bar2_case {
	const char *what;
	u64 length, reported;
	int ret;
} bar2_cases[] = {
	{ "GH200 96 GiB", 96 * GIB, 128 * GIB, 0 },
	{ "GH200 144 GiB", 144 * GIB, 256 * GIB, 0 },
	{ "a power of two", 64 * GIB, 64 * GIB, 0 },
	{ "a page", PAGE, PAGE, 0 },
	{ "nothing", 0, 0, -EINVAL },
	{ "less than a page", PAGE - 1, 0, -EINVAL },
	{ "too large for a region", TIB + PAGE, 0, -EOVERFLOW },
};

/* Of either layout. */
static const struct range_case {
	const char *what;
	u64 base, length, page_size;
	int ret;
} range_cases[] = {
	{ "up to the highest address", 0 - 2 * GIB, 2 * GIB, PAGE, 0 },
	{ "a byte more", 0 - 2 * GIB, 2 * GIB + 1, PAGE, -EINVAL },
	{ "wraps at once", HIGHEST, 2, PAGE, -EINVAL },
	{ "base after the start of a page", BASE + 1, 2 * GIB, PAGE, -EINVAL },
	{ "base at the end of a page", BASE + PAGE - 1, 2 * GIB, PAGE, -EINVAL },
	{ "base at a page", BASE + PAGE, 2 * GIB, PAGE, 0 },
	{ "base inside of a larger page", BASE + PAGE, 2 * GIB, 64 * KIB,
	  -EINVAL },
	{ "base at a larger page", BASE + 64 * KIB, 2 * GIB, 64 * KIB, 0 },
};

/* The rest is of a region of 95 GiB that is reported as 128 GiB. */
static const struct span_case {
	const char *what;
	u64 offset, count;
	int ret;
	u64 memory, hole;
} span_cases[] = {
	{ "one byte", 0, 1, 0, 1, 0 },
	{ "all memory", 0, 95 * GIB, 0, 95 * GIB, 0 },
	{ "all of it", 0, 128 * GIB, 0, 95 * GIB, 33 * GIB },
	{ "clipped", 0, HIGHEST, 0, 95 * GIB, 33 * GIB },
	{ "straddling", 95 * GIB - 2048, 4096, 0, 2048, 2048 },
	{ "last byte of memory", 95 * GIB - 1, 1, 0, 1, 0 },
	{ "first byte of the hole", 95 * GIB, 1, 0, 0, 1 },
	{ "last byte of the hole", 128 * GIB - 1, 1, 0, 0, 1 },
	{ "last byte and one", 128 * GIB - 1, 2, 0, 0, 1 },
	{ "last byte and many", 128 * GIB - 1, HIGHEST, 0, 0, 1 },
	{ "nothing at the reported size", 128 * GIB, 0, -EINVAL, 0, 0 },
	{ "at the reported size", 128 * GIB, 1, -EINVAL, 0, 0 },
	{ "at the highest offset", HIGHEST, HIGHEST, -EINVAL, 0, 0 },
	{ "nothing", 5, 0, 0, 0, 0 },
};

static const struct mmap_case {
	const char *what;
	u64 base, offset, length;
	int ret;
} mmap_cases[] = {
	{ "first page", BASE, 0, PAGE, 0 },
	{ "all memory", BASE, 0, 95 * GIB, 0 },
	{ "last page", BASE, 95 * GIB - PAGE, PAGE, 0 },
	{ "a page more", BASE, 0, 95 * GIB + PAGE, -EINVAL },
	{ "first page of the hole", BASE, 95 * GIB, PAGE, -EINVAL },
	{ "all that is reported", BASE, 0, 128 * GIB, -EINVAL },
	{ "after what is reported", BASE, 128 * GIB, PAGE, -EINVAL },
	{ "nothing", BASE, 0, 0, -EINVAL },
	{ "the end is 0", BASE, 0 - PAGE, PAGE, -EOVERFLOW },
	{ "the end wraps", BASE, 0 - PAGE, 2 * PAGE, -EOVERFLOW },
	{ "the address wraps", BASE, HIGHEST - BASE, PAGE, -EOVERFLOW },
	{ "up to the highest address", 0 - 95 * GIB, 0, 95 * GIB, 0 },
	{ "a page after it", 0 - 95 * GIB, PAGE, 95 * GIB, -EOVERFLOW },
};

static const struct bar_case {
	const char *what;
	u64 stored, value;
} bar_cases[] = {
	{ "as opened", 0, 0xc },
	{ "sizing", HIGHEST, 0xffffffe00000000c },
	{ "sizing, lower half", 0xffffffff, 0xc },
	{ "no multiple of the size", 0x4200000000, 0x400000000c },
	{ "an address", 0x600012345678, 0x60000000000c },
};

/* Of GH200, which has BAR2/3 and BAR4/5. @index 0: outside of both. */
static const struct piece_case {
	const char *what;
	u64 position, count, piece;
	u32 index;
} piece_cases[] = {
	{ "all of config space", 0, 4096, 0x18, 0 },
	{ "BAR0/1", 0x10, 8, 8, 0 },
	{ "BAR0 to BAR5", 0x10, 24, 8, 0 },
	{ "BAR2", 0x18, 4, 4, 2 },
	{ "BAR2 to BAR5", 0x18, 16, 8, 2 },
	{ "last byte of BAR3", 0x1f, 4, 1, 2 },
	{ "BAR4", 0x20, 4, 4, 4 },
	{ "BAR5 and more", 0x24, 64, 4, 4 },
	{ "after the BARs", 0x28, 64, 64, 0 },
	{ "last byte", 4095, 1, 1, 0 },
	{ "nothing", 0x18, 0, 0, 2 },
};

#endif /* NVGRACE_REGION_CASES_H */
