/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * Proofs of region.h with CBMC: what the harnesses share. A harness is a
 * function proof_*() that takes values of which nothing is known, calls
 * region.h and asserts what holds for all of them.
 *
 * Compiled with PROOF_REACH, the assertions are off and every REACHED() has to
 * fail: it shows that the assumptions before it can be met, without which an
 * assertion would hold for nothing.
 */
#ifndef NVGRACE_PROOF_H
#define NVGRACE_PROOF_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;
typedef unsigned __int128 u128;

#include "../../region.h"

/* The page sizes of arm64 are 4, 16 and 64 KiB: proof.sh proves for each. */
#define PAGE_SIZE	(1ULL << PAGE_SHIFT)

#define MIB		(1ULL << 20)
#define GIB		(1ULL << 30)
#define REGION_LIMIT	(1ULL << NVGRACE_REGION_BITS)
#define REGION_MASK	(REGION_LIMIT - 1)
#define ADDRESSES	((u128)1 << 64)

#ifdef PROOF_REACH
#define PROVE(condition, text)	((void)(condition))
#define REACHED(text)		__CPROVER_assert(0, text)
#else
#define PROVE(condition, text)	__CPROVER_assert(condition, text)
#define REACHED(text)		((void)0)
#endif
#define ASSUME(condition)	__CPROVER_assume(condition)

u8 nondet_u8(void);
u32 nondet_u32(void);
u64 nondet_u64(void);
bool nondet_bool(void);

static inline bool whole_pages(u64 bytes)
{
	return bytes % PAGE_SIZE == 0;
}

static inline bool is_pow2(u64 value)
{
	return value && !(value & (value - 1));
}

/* What every layout gives (proof_layout_*) and every access builds upon. */
static inline bool is_region(const struct nvgrace_region *region)
{
	return region->actual && region->mappable &&
	       region->mappable <= region->actual &&
	       region->actual - region->mappable < PAGE_SIZE &&
	       whole_pages(region->mappable) &&
	       whole_pages(region->base) &&
	       region->actual <= region->reported &&
	       region->reported <= REGION_LIMIT && is_pow2(region->reported) &&
	       (u128)region->base + region->actual <= ADDRESSES;
}

static inline struct nvgrace_region any_region(void)
{
	struct nvgrace_region region = {
		.base = nondet_u64(),
		.actual = nondet_u64(),
		.mappable = nondet_u64(),
		.reported = nondet_u64(),
		.index = nondet_bool() ? 4 : 2,
		.write_combined = nondet_bool(),
	};

	ASSUME(is_region(&region));
	return region;
}

#endif /* NVGRACE_PROOF_H */
