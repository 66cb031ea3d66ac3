// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * Layouts: tables with the numbers of real GPUs, and random sizes.
 */
#include "region_test.h"

static void test_pow2(void)
{
	unsigned int i;

	begin("powers of two");
	for (i = 0; i < ARRAY_SIZE(pow2_cases); i++)
		CHECK(nvgrace_round_up_pow2(pow2_cases[i].size) ==
		      pow2_cases[i].pow, "%s", pow2_cases[i].what);
	end();
}

static void test_layout_mainline(void)
{
	struct nvgrace_layout layout;
	unsigned int i;

	begin("mainline layout: sizes of real GPUs and limits");
	for (i = 0; i < ARRAY_SIZE(mainline_cases); i++) {
		const struct mainline_case *c = &mainline_cases[i];
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
	struct nvgrace_layout layout;
	unsigned int i;

	begin("bar2 layout: all memory, cacheable, as region 2");
	for (i = 0; i < ARRAY_SIZE(bar2_cases); i++) {
		const struct bar2_case *c = &bar2_cases[i];
		const struct nvgrace_region *region = &layout.region[0];
		int ret = nvgrace_layout_bar2(&layout, BASE, c->length, PAGE);

		CHECK(ret == c->ret, "%s: %d", c->what, ret);
		CHECK(layout.count == (ret ? 0 : 1), "%s", c->what);
		if (ret)
			continue;
		CHECK(region->index == 2 && region->base == BASE, "%s",
		      c->what);
		CHECK(region->actual == c->length, "%s", c->what);
		CHECK(region->reported == c->reported, "%s", c->what);
		CHECK(!region->write_combined, "%s", c->what);
	}
	end();
}

static void test_bad_ranges(void)
{
	struct nvgrace_layout layout;
	unsigned int i;
	int ret;

	begin("ranges that wrap, bases inside of a page");
	for (i = 0; i < ARRAY_SIZE(range_cases); i++) {
		const struct range_case *c = &range_cases[i];

		ret = nvgrace_layout_mainline(&layout, c->base, c->length,
					      c->page_size, false);
		CHECK(ret == c->ret, "mainline, %s: %d", c->what, ret);
		ret = nvgrace_layout_bar2(&layout, c->base, c->length,
					  c->page_size);
		CHECK(ret == c->ret, "bar2, %s: %d", c->what, ret);
	}
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
