// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * KUnit suite of region.h: the tables of the userspace tests, in the kernel
 * and with its compiler flags.
 */
#include <kunit/test.h>
#include <linux/errno.h>
#include <linux/module.h>
#include <linux/string.h>
#include <linux/types.h>

#include "../../region.h"
#include "../region_cases.h"

/* Defines NAME_gen_params(), which hands out NAME_cases[] one by one. */
#define NVGRACE_CASES(name)						\
static void name##_describe(const struct name##_case *c, char *desc)	\
{									\
	strscpy(desc, c->what, KUNIT_PARAM_DESC_SIZE);			\
}									\
KUNIT_ARRAY_PARAM(name, name##_cases, name##_describe)

NVGRACE_CASES(pow2);
NVGRACE_CASES(mainline);
NVGRACE_CASES(bar2);
NVGRACE_CASES(range);
NVGRACE_CASES(span);
NVGRACE_CASES(mmap);
NVGRACE_CASES(bar);
NVGRACE_CASES(piece);

/* What GH200 with 96 GiB shows as BAR4/5. */
static const struct nvgrace_region usemem = {
	.base = BASE,
	.actual = 95 * GIB,
	.mappable = 95 * GIB,
	.reported = 128 * GIB,
	.index = 4,
};

static void round_up_pow2(struct kunit *test)
{
	const struct pow2_case *c = test->param_value;

	KUNIT_EXPECT_EQ(test, nvgrace_round_up_pow2(c->size), c->pow);
}

static void layout_mainline(struct kunit *test)
{
	const struct mainline_case *c = test->param_value;
	struct nvgrace_layout layout;
	const struct nvgrace_region *use = &layout.region[0];
	const struct nvgrace_region *res = &layout.region[1];
	int ret;

	ret = nvgrace_layout_mainline(&layout, BASE, c->length, PAGE,
				      c->mig_bug);
	KUNIT_ASSERT_EQ(test, ret, c->ret);
	if (ret) {
		KUNIT_EXPECT_EQ(test, layout.count, 0);
		return;
	}
	KUNIT_ASSERT_EQ(test, layout.count, c->mig_bug ? 2 : 1);
	KUNIT_EXPECT_EQ(test, use->index, 4);
	KUNIT_EXPECT_EQ(test, use->base, BASE);
	KUNIT_EXPECT_EQ(test, use->actual, c->usemem);
	KUNIT_EXPECT_EQ(test, use->mappable, c->usemem & ~(PAGE - 1));
	KUNIT_EXPECT_EQ(test, use->reported, c->usemem_reported);
	KUNIT_EXPECT_FALSE(test, use->write_combined);
	if (!c->mig_bug)
		return;
	KUNIT_EXPECT_EQ(test, res->index, 2);
	KUNIT_EXPECT_EQ(test, res->base, BASE + c->usemem);
	KUNIT_EXPECT_EQ(test, res->actual, c->resmem);
	KUNIT_EXPECT_EQ(test, res->reported, c->resmem_reported);
	KUNIT_EXPECT_TRUE(test, res->write_combined);
}

static void layout_bar2(struct kunit *test)
{
	const struct bar2_case *c = test->param_value;
	struct nvgrace_layout layout;
	const struct nvgrace_region *region = &layout.region[0];
	int ret;

	ret = nvgrace_layout_bar2(&layout, BASE, c->length, PAGE);
	KUNIT_ASSERT_EQ(test, ret, c->ret);
	KUNIT_ASSERT_EQ(test, layout.count, ret ? 0 : 1);
	if (ret)
		return;
	KUNIT_EXPECT_EQ(test, region->index, 2);
	KUNIT_EXPECT_EQ(test, region->base, BASE);
	KUNIT_EXPECT_EQ(test, region->actual, c->length);
	KUNIT_EXPECT_EQ(test, region->reported, c->reported);
	KUNIT_EXPECT_FALSE(test, region->write_combined);
}

static void range(struct kunit *test)
{
	const struct range_case *c = test->param_value;
	struct nvgrace_layout layout;

	KUNIT_EXPECT_EQ(test, c->ret,
			nvgrace_layout_mainline(&layout, c->base, c->length,
						c->page_size, false));
	KUNIT_EXPECT_EQ(test, c->ret,
			nvgrace_layout_bar2(&layout, c->base, c->length,
					    c->page_size));
}

static void span(struct kunit *test)
{
	const struct span_case *c = test->param_value;
	struct nvgrace_span span = {};

	KUNIT_EXPECT_EQ(test, c->ret,
			nvgrace_span(&usemem, c->offset, c->count, &span));
	KUNIT_EXPECT_EQ(test, span.memory, c->memory);
	KUNIT_EXPECT_EQ(test, span.hole, c->hole);
}

static void check_mmap(struct kunit *test)
{
	const struct mmap_case *c = test->param_value;
	struct nvgrace_region region = usemem;

	region.base = c->base;
	KUNIT_EXPECT_EQ(test, c->ret,
			nvgrace_check_mmap(&region, c->offset, c->length));
}

static void bar_value(struct kunit *test)
{
	const struct bar_case *c = test->param_value;

	KUNIT_EXPECT_EQ(test, nvgrace_bar_value(&usemem, c->stored), c->value);
}

static void config_piece(struct kunit *test)
{
	const struct piece_case *c = test->param_value;
	struct nvgrace_layout layout;
	u32 which, index = 0;
	u64 piece;

	KUNIT_ASSERT_EQ(test, 0,
			nvgrace_layout_mainline(&layout, BASE, 96 * GIB, PAGE,
						true));
	piece = nvgrace_config_piece(&layout, c->position, c->count, &which);
	KUNIT_ASSERT_LE(test, which, layout.count);
	if (which < layout.count)
		index = layout.region[which].index;
	KUNIT_EXPECT_EQ(test, piece, c->piece);
	KUNIT_EXPECT_EQ(test, index, c->index);
}

/* Every part of a register, written and read back. */
static void bar_bytes(struct kunit *test)
{
	const u64 old = 0x8877665544332211ULL;
	const u8 new[NVGRACE_BAR_BYTES] = { 1, 2, 3, 4, 5, 6, 7, 8 };
	u8 bytes[NVGRACE_BAR_BYTES];
	u32 first, count, i;

	for (first = 0; first < NVGRACE_BAR_BYTES; first++) {
		for (count = 0; count <= NVGRACE_BAR_BYTES - first; count++) {
			u64 value = nvgrace_bar_set(old, first, new, count);

			nvgrace_bar_get(value, 0, bytes, NVGRACE_BAR_BYTES);
			for (i = 0; i < NVGRACE_BAR_BYTES; i++)
				KUNIT_EXPECT_EQ(test, bytes[i],
						i >= first && i - first < count ?
						new[i - first] : 0x11 * (i + 1));
			nvgrace_bar_get(value, first, bytes, count);
			KUNIT_EXPECT_EQ(test, 0, memcmp(bytes, new, count));
		}
	}
}

static struct kunit_case nvgrace_region_cases[] = {
	KUNIT_CASE_PARAM(round_up_pow2, pow2_gen_params),
	KUNIT_CASE_PARAM(layout_mainline, mainline_gen_params),
	KUNIT_CASE_PARAM(layout_bar2, bar2_gen_params),
	KUNIT_CASE_PARAM(range, range_gen_params),
	KUNIT_CASE_PARAM(span, span_gen_params),
	KUNIT_CASE_PARAM(check_mmap, mmap_gen_params),
	KUNIT_CASE_PARAM(bar_value, bar_gen_params),
	KUNIT_CASE_PARAM(config_piece, piece_gen_params),
	KUNIT_CASE(bar_bytes),
	{}
};

static struct kunit_suite nvgrace_region_suite = {
	.name = "nvgrace-region",
	.test_cases = nvgrace_region_cases,
};

kunit_test_suite(nvgrace_region_suite);

MODULE_DESCRIPTION("KUnit suite of nvgrace-gpu-vfio-pci's arithmetic");
MODULE_LICENSE("GPL");
