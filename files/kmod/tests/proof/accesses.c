// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: Contributors to the nvgrace.passthrough project
 *
 * read, write and mmap of every region, with the arithmetic that rw.c and
 * mmap.c add to that of region.h.
 */
#include "proof.h"

void proof_span(void)
{
	struct nvgrace_region region = any_region();
	u64 offset = nondet_u64(), count = nondet_u64();
	struct nvgrace_span span;
	u64 left;
	int ret;

	ret = nvgrace_span(&region, offset, count, &span);
	PROVE(ret == (offset >= region.reported ? -EINVAL : 0),
	      "refused exactly at and after the reported size");
	if (ret) {
		REACHED("refused");
		return;
	}

	left = region.reported - offset;
	PROVE((u128)span.memory + span.hole == (count < left ? count : left),
	      "clipped at the reported size, and nothing else is lost");
	PROVE(!span.memory || (u128)offset + span.memory <= region.actual,
	      "memory lies within [0, actual)");
	PROVE(!span.hole || (u128)offset + span.memory >= region.actual,
	      "the hole begins after the memory");
	PROVE((u128)offset + span.memory + span.hole <= region.reported,
	      "the hole ends with the reported size");
	REACHED("accepted");
	if (span.memory && span.hole)
		REACHED("memory and hole");
	if (!span.memory && span.hole)
		REACHED("hole alone");
}

/* As nvgrace_bar_rw() has it. *ppos is not negative: VFS sees to that. */
void proof_bar_rw(void)
{
	struct nvgrace_region region = any_region();
	u64 count = nondet_u64();
	int64_t pos = nondet_u64(), after, done;
	struct nvgrace_span span;
	u64 offset;

	ASSUME(pos >= 0 && (u64)pos >> NVGRACE_REGION_BITS == region.index);
	ASSUME(count <= INT64_MAX);
	offset = pos & REGION_MASK;
	if (nvgrace_span(&region, offset, count, &span))
		return;

	/* The kernel's mapping has region.actual bytes. */
	if (span.memory)
		PROVE(offset < region.actual &&
		      span.memory <= region.actual - offset,
		      "no byte outside of the kernel's mapping");
	PROVE(span.memory + span.hole <= count,
	      "no byte outside of the user's buffer");
	done = span.memory + span.hole;
	after = pos + done;
	PROVE(done >= 0 && (u64)done <= count, "the count fits its type");
	PROVE(!count || done, "no read(2) that ends without an error or a byte");
	PROVE(after >= pos &&
	      ((u64)after >> NVGRACE_REGION_BITS == region.index ||
	       (u64)after == (u64)(region.index + 1) << NVGRACE_REGION_BITS),
	      "the position stays in the region, or is its end");
	REACHED("done");
}

void proof_check_mmap(void)
{
	struct nvgrace_region region = any_region();
	u64 offset = nondet_u64(), length = nondet_u64();
	u128 end = (u128)offset + length;
	int ret;

	ret = nvgrace_check_mmap(&region, offset, length);
	PROVE(!ret == (length && end <= region.mappable),
	      "accepted exactly within [0, mappable)");
	if (!ret) {
		PROVE(region.base + end <= ADDRESSES, "no address wraps");
		REACHED("accepted");
	} else if (length && (end >= ADDRESSES ||
			      region.base + end > ADDRESSES)) {
		PROVE(ret == -EOVERFLOW, "a sum that wraps");
		REACHED("wraps");
	} else {
		PROVE(ret == -EINVAL, "anything else");
		REACHED("refused");
	}
}

#define PGOFF_MASK	((1ULL << (NVGRACE_REGION_BITS - PAGE_SHIFT)) - 1)

/* As nvgrace_mmap() asks, for a mapping of so many pages. */
static int check_pages(const struct nvgrace_region *region, u64 pgoff,
		       u64 pages)
{
	return nvgrace_check_mmap(region, (pgoff & PGOFF_MASK) << PAGE_SHIFT,
				  pages << PAGE_SHIFT);
}

/* No more pages than there are addresses, as mm sees to. */
static u64 any_pages(void)
{
	u64 pages = nondet_u64();

	ASSUME(pages < 1ULL << (63 - PAGE_SHIFT));
	return pages;
}

/* What munmap(2) or mprotect(2) of a part leaves is accepted, too. */
void proof_mmap_part(void)
{
	struct nvgrace_region region = any_region();
	u64 pgoff = any_pages(), pages = any_pages();
	u64 cut = any_pages(), left = any_pages();

	ASSUME(left && cut + left <= pages);
	if (check_pages(&region, pgoff, pages))
		return;
	PROVE(!check_pages(&region, pgoff + cut, left), "accepted");
	PROVE(((pgoff + cut) & ~PGOFF_MASK) == (pgoff & ~PGOFF_MASK),
	      "of the same region");
	REACHED("a part");
}

/*
 * The faults of a mapping that was accepted, as nvgrace_huge_fault() serves
 * them, in two steps: a fault's pages are within the mapping, and no page
 * within the mapping is outside of the region. @order 0 is a single page.
 */
static void prove_within(u32 order)
{
	const u64 size = PAGE_SIZE << order;
	u64 vm_start = nondet_u64(), vm_end = nondet_u64();
	u64 address = nondet_u64(), start;

	ASSUME(whole_pages(vm_start) && whole_pages(vm_end));
	ASSUME(vm_end < 1ULL << 63);
	ASSUME(address >= vm_start && address < vm_end);
	start = address & ~(size - 1);
	if (order && (start < vm_start || start + size > vm_end))
		return;
	PROVE(start >= vm_start, "not before the mapping");
	PROVE(start - vm_start <= vm_end - vm_start - size, "not after it");
	PROVE(whole_pages(start - vm_start), "whole pages");
	REACHED("a fault");
}

void proof_fault_within(void)
{
	prove_within(0);
}

/* A page of a table has as many entries of 8 bytes as fit. */
void proof_fault_within_pmd(void)
{
	prove_within(PAGE_SHIFT - 3);
}

void proof_fault_within_pud(void)
{
	prove_within(2 * (PAGE_SHIFT - 3));
}

void proof_fault_pfn(void)
{
	struct nvgrace_region region = any_region();
	u64 pgoff = any_pages(), pages = any_pages();
	u64 at = any_pages(), count = any_pages(), page;

	ASSUME(count && at + count <= pages);
	if (check_pages(&region, pgoff, pages))
		return;
	/* The driver adds it to PHYS_PFN(base), which cannot wrap then. */
	page = (pgoff & PGOFF_MASK) + at;
	PROVE(page + count <= region.mappable >> PAGE_SHIFT,
	      "not after the last whole page");
	REACHED("a fault");
}
