// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * Config space: how an access is cut, and the BAR registers.
 */
#include "proof.h"

#define CONFIG_SIZE	4096

/* All layouts, of any memory. */
static struct nvgrace_layout any_layout(void)
{
	u64 base = nondet_u64(), length = nondet_u64();
	struct nvgrace_layout layout;

	if (nondet_bool())
		ASSUME(!nvgrace_layout_bar2(&layout, base, length, PAGE_SIZE));
	else
		ASSUME(!nvgrace_layout_mainline(&layout, base, length,
						PAGE_SIZE, nondet_bool()));
	return layout;
}

/* Their registers alone: proof_layout_* proves that there are no others. */
static struct nvgrace_layout any_registers(void)
{
	struct nvgrace_layout layout = { .count = 1 };

	layout.region[0].index = nondet_bool() ? 4 : 2;
	if (layout.region[0].index == 4 && nondet_bool()) {
		layout.region[1].index = 2;
		layout.count = 2;
	}
	return layout;
}

static bool has_registers(const struct nvgrace_layout *layout)
{
	u32 first = layout->region[0].index;

	if (layout->count == 1)
		return first == 2 || first == 4;
	return layout->count == 2 && first == 4 &&
	       layout->region[1].index == 2;
}

void proof_registers(void)
{
	struct nvgrace_layout layout = any_layout();

	PROVE(has_registers(&layout), "any_registers() has them all");
	if (layout.count == 2)
		REACHED("two");
	else if (layout.region[0].index == 2)
		REACHED("BAR2/3");
	else
		REACHED("BAR4/5");
}

/* The region that a byte of config space belongs to, layout->count for none. */
static u32 register_of(const struct nvgrace_layout *layout, u64 position)
{
	u32 i;

	for (i = 0; i < layout->count; i++)
		if (position / 8 == 2 + layout->region[i].index / 2)
			return i;
	return layout->count;
}

void proof_config_piece(void)
{
	struct nvgrace_layout layout = any_registers();
	u64 position = nondet_u64(), count = nondet_u64(), i = nondet_u64(), piece;
	u32 which;

	ASSUME((u128)position + count <= ADDRESSES);
	piece = nvgrace_config_piece(&layout, position, count, &which);
	PROVE(piece <= count, "never longer than the access");
	PROVE(!count || piece, "never empty");
	PROVE(which <= layout.count, "a region or none");

	ASSUME(i < count);
	if (i < piece) {
		PROVE(register_of(&layout, position + i) == which,
		      "all of it in one BAR, or all of it outside");
		REACHED("within");
	}
	if (i == piece) {
		PROVE(register_of(&layout, position + i) != which,
		      "not shorter than it can be");
		REACHED("after");
	}
	if (which < layout.count) {
		u64 bar = nvgrace_bar_position(&layout.region[which]);

		PROVE(position >= bar && position - bar + piece <= 8,
		      "the bytes that bar_get() and bar_set() get exist");
		REACHED("in a BAR");
	}
}

/*
 * As nvgrace_config_rw() has it. A byte of the access is served once, by its
 * own register or by the core. Four pieces are the most there can be, in front
 * of, in, and after two neighbours: the loop's bound is proven, too.
 */
void proof_config_tiling(void)
{
	struct nvgrace_layout layout = any_registers();
	u64 position = nondet_u64(), count = nondet_u64(), byte = nondet_u64();
	u64 done = 0;
	u32 pieces = 0, served = 0, which;

	ASSUME(position <= CONFIG_SIZE && count <= CONFIG_SIZE - position);
	ASSUME(byte < count);
	while (done < count) {
		u64 piece = nvgrace_config_piece(&layout, position + done,
						 count - done, &which);

		if (byte >= done && byte - done < piece) {
			PROVE(register_of(&layout, position + byte) == which,
			      "by the right one");
			served++;
		}
		done += piece;
		pieces++;
	}
	PROVE(done == count, "all of the access");
	PROVE(served == 1, "each byte once");
	PROVE(pieces <= 4, "in four pieces at most");
	if (pieces == 4)
		REACHED("four pieces");
}

void proof_bar_value(void)
{
	struct nvgrace_region region = any_region();
	u64 stored = nondet_u64(), value = nvgrace_bar_value(&region, stored);

	PROVE((value & 0xf) == 0xc, "64-bit, prefetchable memory");
	PROVE(((value ^ 0xc) & (region.reported - 1)) == 0,
	      "an address that is a multiple of the size");
	PROVE((value ^ stored) < region.reported,
	      "all bits from the size on are as they were written");
	PROVE(nvgrace_bar_value(&region, value) == value,
	      "what was read can be written back");
	value = nvgrace_bar_value(&region, UINT64_MAX);
	PROVE(~(value & ~0xfULL) == region.reported - 1,
	      "sizing gives the reported size");
	REACHED("end");
}

/* The bytes of a register, as bar_get() and bar_set() are called: in it. */
void proof_bar_bytes(void)
{
	u8 bytes[NVGRACE_BAR_BYTES], back[NVGRACE_BAR_BYTES];
	u32 first = nondet_u32(), count = nondet_u32(), i = nondet_u32();
	u64 stored = nondet_u64(), value;
	u8 was, is;

	ASSUME(first < NVGRACE_BAR_BYTES);
	ASSUME(count <= NVGRACE_BAR_BYTES - first);
	ASSUME(i < NVGRACE_BAR_BYTES);
	value = nvgrace_bar_set(stored, first, bytes, count);
	was = ((u8 *)&stored)[i];
	is = ((u8 *)&value)[i];
	if (i >= first && i - first < count) {
		PROVE(is == bytes[i - first], "a byte that was written");
		REACHED("written");
	} else {
		PROVE(is == was, "a byte that was not");
		REACHED("not written");
	}

	nvgrace_bar_get(value, first, back, count);
	if (i < count)
		PROVE(back[i] == bytes[i], "reads as it was written");
	nvgrace_bar_get(value, 0, back, NVGRACE_BAR_BYTES);
	PROVE(back[i] == is, "little-endian");
	REACHED("end");
}
