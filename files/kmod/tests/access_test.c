// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * Accesses: tables of limits, and random ones compared with a model that
 * decides for one byte at a time.
 */
#include "region_test.h"

#define CONFIG_SIZE	4096

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
	struct nvgrace_region region = small_region(95 * GIB, 128 * GIB);
	struct nvgrace_span span;
	unsigned int i;

	begin("accesses: memory, hole, clipped, refused");
	for (i = 0; i < ARRAY_SIZE(span_cases); i++) {
		const struct span_case *c = &span_cases[i];
		int ret = nvgrace_span(&region, c->offset, c->count, &span);

		CHECK(ret == c->ret, "%s: %d", c->what, ret);
		if (ret)
			continue;
		CHECK(span.memory == c->memory, "%s", c->what);
		CHECK(span.hole == c->hole, "%s", c->what);
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
	struct nvgrace_region region = small_region(95 * GIB, 128 * GIB);
	struct nvgrace_region odd = small_region(3 * PAGE + 1, 4 * PAGE);
	unsigned int i;

	begin("mappings: up to the last whole page of memory");
	for (i = 0; i < ARRAY_SIZE(mmap_cases); i++) {
		const struct mmap_case *c = &mmap_cases[i];
		int ret;

		region.base = c->base;
		ret = nvgrace_check_mmap(&region, c->offset, c->length);
		CHECK(ret == c->ret, "%s: %d", c->what, ret);
	}
	CHECK(!nvgrace_check_mmap(&odd, 0, 3 * PAGE), "odd");
	CHECK(nvgrace_check_mmap(&odd, 0, 4 * PAGE) == -EINVAL, "odd");
	end();
}

static void test_bar_value(void)
{
	struct nvgrace_region region = small_region(95 * GIB, 128 * GIB);
	unsigned int i;

	begin("BAR registers: size mask, type bits");
	for (i = 0; i < ARRAY_SIZE(bar_cases); i++) {
		const struct bar_case *c = &bar_cases[i];
		u64 value = nvgrace_bar_value(&region, c->stored);

		CHECK(value == c->value, "%s: %" PRIx64, c->what, value);
	}
	CHECK(nvgrace_bar_position(&region) == 0x20, "index 4");
	region.index = 2;
	CHECK(nvgrace_bar_position(&region) == 0x18, "index 2");
	end();
}

static void test_config_pieces(void)
{
	struct nvgrace_layout layout;
	unsigned int i;

	begin("config accesses: the first piece");
	nvgrace_layout_mainline(&layout, BASE, 96 * GIB, PAGE, true);
	for (i = 0; i < ARRAY_SIZE(piece_cases); i++) {
		const struct piece_case *c = &piece_cases[i];
		u32 which, index = 0;
		u64 piece = nvgrace_config_piece(&layout, c->position,
						 c->count, &which);

		if (which < layout.count)
			index = layout.region[which].index;
		CHECK(piece == c->piece, "%s: %" PRIu64, c->what, piece);
		CHECK(index == c->index, "%s: %" PRIu32, c->what, index);
	}
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

int main(void)
{
	test_span();
	test_span_model();
	test_mmap();
	test_bar_value();
	test_config_pieces();
	test_config();
	return summary("region.h, accesses");
}
