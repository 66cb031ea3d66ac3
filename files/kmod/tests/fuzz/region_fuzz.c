// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * region.h against a model that decides with 128-bit integers and for one
 * byte at a time. One input is one layout, and an access of each kind to it.
 *
 * libFuzzer makes the inputs; with STANDALONE a generator does, so that any
 * compiler is enough, and the argument is the number of cases.
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
typedef unsigned __int128 u128;

#include "../../region.h"

#define GIB		((u128)1 << 30)
#define ADDRESSES	((u128)1 << 64)
#define ACCESS		48

struct input {
	u64 base, length, offset, count, stored[2];
	u8 base_shift, length_shift, count_shift, anchor;
	int8_t delta, length_delta;
	u8 page, kind, position, width, access[ACCESS];
} __attribute__((packed));

/* What the model knows of a region: it looks at none of region.h's. */
struct model {
	u128 base, actual, reported;
	u32 index;
};

#define AGREE(ours, models) do {					\
	if ((u128)(ours) != (u128)(models))				\
		disagree(#ours, (u64)(ours), (u64)(models), __LINE__);	\
} while (0)

static void disagree(const char *what, u64 ours, u64 models, int line)
{
	fprintf(stderr, "%s:%d: %s is %#" PRIx64 ", and %#" PRIx64
		" in the model\n", __FILE__, line, what, ours, models);
	abort();
}

static u128 model_pow2(u128 size)
{
	u32 bit;

	for (bit = 0; (u128)1 << bit < size; bit++)
		;
	return (u128)1 << bit;
}

/* Fills two regions and returns their number, or an error. */
static int model_layout(struct model *m, u128 base, u128 length, u128 page,
			bool bar2, bool bug)
{
	bool split = bug && !bar2;
	u128 rest, first;

	if (!length || base + length > ADDRESSES)
		return -EINVAL;
	if (split && length < GIB)
		return -EOVERFLOW;
	rest = split ? length - GIB : length;
	first = split ? rest / (GIB / 2) * (GIB / 2) : length;
	if (first < page || base % page)
		return -EINVAL;
	if (model_pow2(rest) > 1024 * GIB)
		return -EOVERFLOW;
	m[0] = (struct model){ base, first, model_pow2(rest), bar2 ? 2 : 4 };
	if (!split)
		return 1;
	m[1] = (struct model){ base + first, length - first,
			       model_pow2(length - first), 2 };
	return 2;
}

static void compare_region(const struct nvgrace_region *region,
			   const struct model *m, u128 page, bool wc)
{
	AGREE(region->base, m->base);
	AGREE(region->actual, m->actual);
	AGREE(region->mappable, m->actual / page * page);
	AGREE(region->reported, m->reported);
	AGREE(region->index, m->index);
	AGREE(region->write_combined, wc);
}

static u128 below(u128 value, u128 limit)
{
	return value < limit ? value : limit;
}

static void compare_span(const struct nvgrace_region *region,
			 const struct model *m, u64 offset, u64 count)
{
	struct nvgrace_span span;
	int ret = nvgrace_span(region, offset, count, &span);
	u128 end = below((u128)offset + count, m->reported), memory_end;

	AGREE(ret, offset >= m->reported ? -EINVAL : 0);
	if (ret)
		return;
	memory_end = below(end, m->actual);
	AGREE(span.memory, memory_end > offset ? memory_end - offset : 0);
	AGREE((u128)span.memory + span.hole, end - offset);
}

static void compare_mmap(const struct nvgrace_region *region,
			 const struct model *m, u128 page, u64 offset,
			 u64 length)
{
	u128 end = (u128)offset + length;
	int expected = 0;

	if (!length)
		expected = -EINVAL;
	else if (end >= ADDRESSES || m->base + end > ADDRESSES)
		expected = -EOVERFLOW;
	else if (end > m->actual / page * page)
		expected = -EINVAL;
	AGREE(nvgrace_check_mmap(region, offset, length), expected);
}

/* The number of the model's region that a config byte belongs to. */
static int model_owner(const struct model *m, int count, u32 position)
{
	int i;

	for (i = 0; i < count; i++)
		if (position / 8 == (16 + 4 * m[i].index) / 8)
			return i;
	return count;
}

static void model_write(const struct input *in, const struct model *m,
			int count, u64 *stored)
{
	u32 i;

	for (i = 0; i < in->width; i++) {
		u32 position = in->position + i;
		int which = model_owner(m, count, position);

		if (which < count)
			((u8 *)&stored[which])[position % 8] = in->access[i];
	}
}

static u8 model_read(const struct model *m, const u64 *stored, int which,
		     u32 position)
{
	u64 value = (stored[which] / (u64)m[which].reported *
		     (u64)m[which].reported) + 12;

	return ((u8 *)&value)[position % 8];
}

/* Writes and reads config space in pieces as config.c does. */
static void compare_config(const struct nvgrace_layout *layout,
			   const struct model *m, const struct input *in)
{
	u64 ours[2], models[2], done, piece;
	u8 back[ACCESS];
	u32 which, i;

	memcpy(ours, in->stored, sizeof(ours));
	memcpy(models, in->stored, sizeof(models));
	model_write(in, m, layout->count, models);
	for (done = 0; done < in->width; done += piece) {
		const struct nvgrace_region *region;
		u64 at = in->position + done;
		u32 first;

		piece = nvgrace_config_piece(layout, at, in->width - done,
					     &which);
		AGREE(piece >= 1 && piece <= in->width - done, true);
		for (i = 0; i < piece; i++)
			AGREE(which, model_owner(m, layout->count, at + i));
		if (which == layout->count)
			continue;
		region = &layout->region[which];
		first = at - nvgrace_bar_position(region);
		ours[which] = nvgrace_bar_set(ours[which], first,
					      in->access + done, piece);
		nvgrace_bar_get(nvgrace_bar_value(region, ours[which]), first,
				back, piece);
		for (i = 0; i < piece; i++)
			AGREE(back[i], model_read(m, models, which, at + i));
	}
	for (i = 0; i < layout->count; i++)
		AGREE(ours[i], models[i]);
}

/* Modulo 2^64. */
static u64 plus(u128 value, int delta)
{
	return (u64)((__int128)(ADDRESSES + value) + delta);
}

/* A limit of the region, give or take a little: where faults are. */
static u64 near_limit(const struct input *in, const struct model *m)
{
	const u128 limits[] = { 0, m->actual, m->reported,
				ADDRESSES - m->base, ADDRESSES };

	return plus(limits[in->anchor % 5], in->delta);
}

static void compare_accesses(const struct nvgrace_layout *layout,
			     const struct model *m, const struct input *in,
			     u128 page)
{
	u64 count = in->count >> in->count_shift % 64;
	u64 offset = in->anchor & 8 ? near_limit(in, m) : in->offset;
	u64 pages = offset / (u64)page * (u64)page;
	u32 i;

	for (i = 0; i < layout->count; i++) {
		compare_span(&layout->region[i], &m[i], offset, count);
		compare_mmap(&layout->region[i], &m[i], page, offset, count);
		compare_mmap(&layout->region[i], &m[i], page, 0, pages);
		compare_mmap(&layout->region[i], &m[i], page, pages, page);
	}
}

static void compare(struct input *in)
{
	bool bar2 = in->kind & 1, bug = in->kind & 2;
	u64 page = 1ULL << (12 + 2 * (in->page % 3));
	u64 base = in->base >> in->base_shift % 64;
	u64 length = in->length >> in->length_shift % 64;
	struct nvgrace_layout layout;
	struct model m[2];
	int ret, count;
	u32 i;

	/* What can be made a layout of more often than chance has it. */
	if (in->kind & 36)
		length %= (u64)(2048 * GIB);
	if (in->kind & 12)
		base = base / page * page;
	if (in->kind & 8)
		length = plus(length / (u64)(GIB / 2) * (GIB / 2),
			      in->length_delta);
	if (in->kind & 16)
		base = (u64)(ADDRESSES - length);
	in->width %= ACCESS + 1;

	ret = bar2 ? nvgrace_layout_bar2(&layout, base, length, page) :
		     nvgrace_layout_mainline(&layout, base, length, page, bug);
	count = model_layout(m, base, length, page, bar2, bug);
	AGREE(ret, count < 0 ? count : 0);
	if (ret)
		return;
	AGREE(layout.count, count);
	for (i = 0; i < layout.count; i++)
		compare_region(&layout.region[i], &m[i], page, i == 1);
	compare_accesses(&layout, m, in, page);
	compare_config(&layout, m, in);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct input in = {};

	memcpy(&in, data, size < sizeof(in) ? size : sizeof(in));
	compare(&in);
	return 0;
}

#ifdef STANDALONE
/* xorshift64: the same sequence on every run. */
static u64 next(u64 *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

int main(int argc, char **argv)
{
	u64 cases = 1, i, word;
	u64 state = 0x9e3779b97f4a7c15ULL;
	u8 data[sizeof(struct input)];
	size_t at;

	if (argc > 1)
		cases = strtoull(argv[1], NULL, 10);
	for (i = 0; i < cases; i++) {
		for (at = 0; at < sizeof(data); at += 8) {
			word = next(&state);
			memcpy(data + at, &word,
			       sizeof(data) - at < 8 ? sizeof(data) - at : 8);
		}
		LLVMFuzzerTestOneInput(data, sizeof(data));
	}
	printf("region.h, random cases: %" PRIu64 " agree with the model\n",
	       cases);
	return 0;
}
#endif /* STANDALONE */
