// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * Userspace test of region.h: tables with the numbers of real GPUs, and random
 * accesses compared with a model that decides for one byte at a time.
 * Prints one line per group and a summary; exits 1 when anything failed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

#include "../region.h"

#define KIB		1024ULL
#define MIB		(KIB * KIB)
#define GIB		(KIB * MIB)
#define TIB		(KIB * GIB)
#define PAGE		4096ULL
#define BASE		0x420000000000ULL
#define CONFIG_SIZE	4096
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

static unsigned int checks, failures, groups, failed_groups, failures_before;
static const char *group_name;

#define CHECK(condition, ...) do {					\
	checks++;							\
	if (!(condition)) {						\
		failures++;						\
		if (failures - failures_before <= 5) {			\
			printf("  %s:%d: %s: ", __FILE__, __LINE__,	\
			       #condition);				\
			printf(__VA_ARGS__);				\
			printf("\n");					\
		}							\
	}								\
} while (0)

static void begin(const char *name)
{
	group_name = name;
	failures_before = failures;
	checks = 0;
}

static void end(void)
{
	groups++;
	failed_groups += failures != failures_before;
	printf("%-4s %s (%u checks)\n",
	       failures == failures_before ? "ok" : "FAIL", group_name, checks);
}

/* xorshift64: the same sequence on every run. */
static u64 random_state = 0x9e3779b97f4a7c15ULL;

static u64 random_u64(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static u64 random_below(u64 limit)
{
	return random_u64() % limit;
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

static struct nvgrace_region small_region(u64 actual, u64 reported)
{
	struct nvgrace_region region = {
		.base = BASE,
		.actual = actual,
		.mappable = actual & ~(PAGE - 1),
		.reported = reported,
		.index = 4,
	};

	return region;
}

static void test_span(void)
{
	static const struct {
		u64 offset, count;
		int ret;
		u64 memory, hole;
	} cases[] = {
		{ 0, 1, 0, 1, 0 },
		{ 0, 95 * GIB, 0, 95 * GIB, 0 },
		{ 0, 128 * GIB, 0, 95 * GIB, 33 * GIB },
		{ 0, UINT64_MAX, 0, 95 * GIB, 33 * GIB },
		{ 95 * GIB - 2048, 4096, 0, 2048, 2048 },
		{ 95 * GIB - 1, 1, 0, 1, 0 },
		{ 95 * GIB, 1, 0, 0, 1 },
		{ 128 * GIB - 1, 1, 0, 0, 1 },
		{ 128 * GIB - 1, 2, 0, 0, 1 },
		{ 128 * GIB - 1, UINT64_MAX, 0, 0, 1 },
		{ 128 * GIB, 0, -EINVAL, 0, 0 },
		{ 128 * GIB, 1, -EINVAL, 0, 0 },
		{ UINT64_MAX, UINT64_MAX, -EINVAL, 0, 0 },
		{ 5, 0, 0, 0, 0 },
	};
	struct nvgrace_region region = small_region(95 * GIB, 128 * GIB);
	struct nvgrace_span span;
	unsigned int i;

	begin("accesses: memory, hole, clipped, refused");
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		int ret = nvgrace_span(&region, cases[i].offset,
				       cases[i].count, &span);

		CHECK(ret == cases[i].ret, "case %u: %d", i, ret);
		if (ret)
			continue;
		CHECK(span.memory == cases[i].memory, "case %u", i);
		CHECK(span.hole == cases[i].hole, "case %u", i);
	}
	end();
}

static void test_span_model(void)
{
	unsigned int i;

	begin("random accesses against a byte-by-byte model");
	for (i = 0; i < 20000; i++) {
		u64 actual = 1 + random_below(300), reported, byte;
		u64 offset = random_below(600), count = random_below(600);
		u64 memory = 0, hole = 0;
		struct nvgrace_region region;
		struct nvgrace_span span;
		int ret;

		reported = nvgrace_round_up_pow2(actual) << random_below(2);
		region = small_region(actual, reported);
		for (byte = offset; byte < offset + count; byte++) {
			memory += byte < actual;
			hole += byte >= actual && byte < reported;
		}
		ret = nvgrace_span(&region, offset, count, &span);
		CHECK((ret == -EINVAL) == (offset >= reported),
		      "offset %" PRIu64, offset);
		if (ret)
			continue;
		CHECK(span.memory == memory && span.hole == hole,
		      "offset %" PRIu64 " count %" PRIu64, offset, count);
		CHECK(!span.memory || offset + span.memory <= actual,
		      "offset %" PRIu64 " count %" PRIu64, offset, count);
	}
	end();
}

static void test_mmap(void)
{
	static const struct { u64 offset, length; int ret; } cases[] = {
		{ 0, PAGE, 0 },
		{ 0, 95 * GIB, 0 },
		{ 95 * GIB - PAGE, PAGE, 0 },
		{ 0, 95 * GIB + PAGE, -EINVAL },
		{ 95 * GIB, PAGE, -EINVAL },
		{ 0, 128 * GIB, -EINVAL },
		{ 128 * GIB, PAGE, -EINVAL },
		{ 0, 0, -EINVAL },
		{ UINT64_MAX - PAGE + 1, PAGE, -EOVERFLOW },
		{ UINT64_MAX - PAGE + 1, 2 * PAGE, -EOVERFLOW },
		{ UINT64_MAX - BASE, PAGE, -EOVERFLOW },
	};
	struct nvgrace_region region = small_region(95 * GIB, 128 * GIB);
	struct nvgrace_region odd = small_region(3 * PAGE + 1, 4 * PAGE);
	unsigned int i;

	begin("mappings: up to the last whole page of memory");
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		int ret = nvgrace_check_mmap(&region, cases[i].offset,
					     cases[i].length);

		CHECK(ret == cases[i].ret, "case %u: %d", i, ret);
	}
	CHECK(!nvgrace_check_mmap(&odd, 0, 3 * PAGE), "odd");
	CHECK(nvgrace_check_mmap(&odd, 0, 4 * PAGE) == -EINVAL, "odd");
	end();
}

static void test_bar_value(void)
{
	static const struct { u64 stored, value; } cases[] = {
		{ 0, 0xc },
		{ UINT64_MAX, 0xffffffe00000000c },
		{ 0xffffffff, 0xc },
		{ 0x4200000000, 0x400000000c },
		{ 0x600012345678, 0x60000000000c },
	};
	struct nvgrace_region region = small_region(95 * GIB, 128 * GIB);
	unsigned int i;

	begin("BAR registers: size mask, type bits");
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		u64 value = nvgrace_bar_value(&region, cases[i].stored);

		CHECK(value == cases[i].value, "case %u: %" PRIx64, i, value);
	}
	CHECK(nvgrace_bar_position(&region) == 0x20, "index 4");
	region.index = 2;
	CHECK(nvgrace_bar_position(&region) == 0x18, "index 2");
	end();
}

/* Cuts a config access into pieces as config.c does. */
static void config_access(const struct nvgrace_layout *layout, u64 *stored,
			  u8 *core, u64 position, u8 *buf, u64 count, bool write)
{
	u64 done, piece;
	u32 which;

	for (done = 0; done < count; done += piece) {
		u64 at = position + done;
		u32 first;

		piece = nvgrace_config_piece(layout, at, count - done, &which);
		CHECK(piece && piece <= count - done, "at %" PRIu64, at);
		if (!piece)
			return;
		if (which == layout->count) {
			memcpy(write ? core + at : buf + done,
			       write ? buf + done : core + at, piece);
			continue;
		}
		first = at - nvgrace_bar_position(&layout->region[which]);
		CHECK(first + piece <= NVGRACE_BAR_BYTES, "at %" PRIu64, at);
		if (write)
			stored[which] = nvgrace_bar_set(stored[which], first,
							buf + done, piece);
		else
			nvgrace_bar_get(nvgrace_bar_value(&layout->region[which],
							  stored[which]),
					first, buf + done, piece);
	}
}

/* The emulated register that a config byte belongs to, or -1. */
static int model_register(const struct nvgrace_layout *layout, u64 at)
{
	u32 i;

	for (i = 0; i < layout->count; i++)
		if (at / 8 == (0x10 + 4 * layout->region[i].index) / 8)
			return i;
	return -1;
}

static void test_config_layout(const struct nvgrace_layout *layout)
{
	u64 stored[NVGRACE_MAX_REGIONS] = {};
	u8 written[CONFIG_SIZE] = {}, core[CONFIG_SIZE] = {}, buf[128];
	unsigned int i, b;

	for (i = 0; i < 20000; i++) {
		u64 position = random_below(80), count = random_below(80);
		bool write = random_u64() & 1;

		for (b = 0; b < count; b++)
			buf[b] = random_u64();
		if (write)
			memcpy(written + position, buf, count);
		config_access(layout, stored, core, position, buf, count,
			      write);
		if (write)
			continue;
		for (b = 0; b < count; b++) {
			u64 at = position + b, reg, mask;
			int which = model_register(layout, at);
			u8 expected = written[at];

			if (which >= 0) {
				memcpy(&reg, written + at / 8 * 8, 8);
				mask = ~(layout->region[which].reported - 1);
				reg = (reg & mask) | 0xc;
				expected = reg >> (8 * (at % 8));
			}
			CHECK(buf[b] == expected,
			      "position %" PRIu64 " byte %u: %x", position, b,
			      buf[b]);
		}
	}
	for (b = 0; b < CONFIG_SIZE; b++)
		CHECK(model_register(layout, b) < 0 || !core[b],
		      "byte %u reached the core", b);
}

static void test_config(void)
{
	struct nvgrace_layout layout;

	begin("config accesses of any width against a byte-by-byte model");
	nvgrace_layout_mainline(&layout, BASE, 96 * GIB, PAGE, true);
	test_config_layout(&layout);
	nvgrace_layout_mainline(&layout, BASE, 186 * GIB, PAGE, false);
	test_config_layout(&layout);
	nvgrace_layout_bar2(&layout, BASE, 96 * GIB, PAGE);
	test_config_layout(&layout);
	end();
}

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

int main(void)
{
	test_pow2();
	test_layout_mainline();
	test_layout_bar2();
	test_bad_ranges();
	test_layout_random();
	test_span();
	test_span_model();
	test_mmap();
	test_bar_value();
	test_config();
	printf("region.h: %u groups, %u failed\n", groups, failed_groups);
	return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
