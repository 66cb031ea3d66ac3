// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * Layouts: tables with the numbers of real GPUs, and random sizes.
 */
#include "region_test.h"

static void test_pow2(void)
{
	static const struct { u64 size, pow; } cases[] = {
		{ 1, 1 }, { 2, 2 }, { 3, 4 }, { 95 * GIB, 128 * GIB },
		{ 128 * GIB, 128 * GIB }, { 128 * GIB + 1, 256 * GIB },
		{ 1ULL << 63, 1ULL << 63 }, { (1ULL << 63) + 1, 0 },
		{ UINT64_MAX, 0 },
	};
	unsigned int i;

	begin("powers of two");
	for (i = 0; i < ARRAY_SIZE(cases); i++)
		CHECK(nvgrace_round_up_pow2(cases[i].size) == cases[i].pow,
		      "%" PRIu64, cases[i].size);
	end();
}

struct layout_case {
	const char *what;
	u64 length;
	bool mig_bug;
	int ret;
	u64 usemem, usemem_reported;
	u64 resmem, resmem_reported;
};

static const struct layout_case layout_cases[] = {
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

static void test_layout_mainline(void)
{
	struct nvgrace_layout layout;
	unsigned int i;

	begin("mainline layout: sizes of real GPUs and limits");
	for (i = 0; i < ARRAY_SIZE(layout_cases); i++) {
		const struct layout_case *c = &layout_cases[i];
		const struct nvgrace_region *use = &layout.region[0];
		const struct nvgrace_region *res = &layout.region[1];
		int ret = nvgrace_layout_mainline(&layout, BASE, c->length,
						  PAGE, c->mig_bug);

		CHECK(ret == c->ret, "%s: %d", c->what, ret);
		if (ret || c->ret)
			continue;
		CHECK(layout.count == (c->resmem ? 2 : 1), "%s", c->what);
		CHECK(use->index == 4, "%s", c->what);
		CHECK(use->base == BASE, "%s", c->what);
		CHECK(use->actual == c->usemem, "%s", c->what);
		CHECK(use->mappable == c->usemem / PAGE * PAGE, "%s", c->what);
		CHECK(use->reported == c->usemem_reported, "%s", c->what);
		CHECK(!use->write_combined, "%s", c->what);
		if (!c->resmem)
			continue;
		CHECK(res->index == 2, "%s", c->what);
		CHECK(res->base == BASE + c->usemem, "%s", c->what);
		CHECK(res->actual == c->resmem, "%s", c->what);
		CHECK(res->reported == c->resmem_reported, "%s", c->what);
		CHECK(res->write_combined, "%s", c->what);
	}
	end();
}

static void test_layout_bar2(void)
{
	static const struct { u64 length, reported; int ret; } cases[] = {
		{ 96 * GIB, 128 * GIB, 0 },
		{ 144 * GIB, 256 * GIB, 0 },
		{ 64 * GIB, 64 * GIB, 0 },
		{ PAGE, PAGE, 0 },
		{ 0, 0, -EINVAL },
		{ PAGE - 1, 0, -EINVAL },
		{ TIB + PAGE, 0, -EOVERFLOW },
	};
	struct nvgrace_layout layout;
	unsigned int i;

	begin("bar2 layout: all memory, cacheable, as region 2");
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct nvgrace_region *region = &layout.region[0];
		int ret = nvgrace_layout_bar2(&layout, BASE, cases[i].length,
					      PAGE);

		CHECK(ret == cases[i].ret, "case %u: %d", i, ret);
		CHECK(layout.count == (ret ? 0 : 1), "case %u", i);
		if (ret)
			continue;
		CHECK(region->index == 2 && region->base == BASE, "case %u", i);
		CHECK(region->actual == cases[i].length, "case %u", i);
		CHECK(region->reported == cases[i].reported, "case %u", i);
		CHECK(!region->write_combined, "case %u", i);
	}
	end();
}

static void test_bad_ranges(void)
{
	static const struct { u64 base, length; int ret; } cases[] = {
		{ 0 - 2 * GIB, 2 * GIB, 0 },
		{ 0 - 2 * GIB, 2 * GIB + 1, -EINVAL },
		{ UINT64_MAX, 2, -EINVAL },
		{ BASE + 1, 2 * GIB, -EINVAL },
		{ BASE + PAGE - 1, 2 * GIB, -EINVAL },
		{ BASE + PAGE, 2 * GIB, 0 },
	};
	struct nvgrace_layout layout;
	unsigned int i;
	int ret;

	begin("ranges that wrap, bases inside of a page");
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		ret = nvgrace_layout_mainline(&layout, cases[i].base,
					      cases[i].length, PAGE, false);
		CHECK(ret == cases[i].ret, "mainline, case %u: %d", i, ret);
		ret = nvgrace_layout_bar2(&layout, cases[i].base,
					  cases[i].length, PAGE);
		CHECK(ret == cases[i].ret, "bar2, case %u: %d", i, ret);
	}
	/* 64 KiB pages: the same base may be inside of a page there. */
	ret = nvgrace_layout_bar2(&layout, BASE + PAGE, GIB, 64 * KIB);
	CHECK(ret == -EINVAL, "%d", ret);
	end();
}

static void test_layout_random(void)
{
	unsigned int i;

	begin("random layouts: regions cover the memory once, nothing else");
	for (i = 0; i < 20000; i++) {
		u64 length = random_below(300 * GIB), base, covered = 0;
		struct nvgrace_layout layout;
		bool bug = random_u64() & 1;
		u32 r;

		base = random_below(1ULL << 48) & ~(PAGE - 1);
		if (nvgrace_layout_mainline(&layout, base, length, PAGE, bug))
			continue;
		for (r = 0; r < layout.count; r++) {
			const struct nvgrace_region *region = &layout.region[r];

			CHECK(region->base == base + covered, "%" PRIu64,
			      length);
			CHECK(region->actual <= region->reported, "%" PRIu64,
			      length);
			CHECK(!(region->reported & (region->reported - 1)),
			      "%" PRIu64, length);
			CHECK(region->mappable <= region->actual &&
			      region->actual - region->mappable < PAGE,
			      "%" PRIu64, length);
			covered += region->actual;
		}
		CHECK(covered == length, "%" PRIu64, length);
	}
	end();
}

int main(void)
{
	test_pow2();
	test_layout_mainline();
	test_layout_bar2();
	test_bad_ranges();
	test_layout_random();
	return summary("region.h, layouts");
}
