#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Copyright: Contributors to the nvgrace.passthrough project
#
# usage: proof.sh mutate, which runs this within its Debian root
#
# Changes one line of a copy of region.h at a time, and prints who notices: the
# tables and random cases of layout_test and access_test, the model of
# region_fuzz, the proofs. Fails where nobody does. A compiler that refuses the
# change counts for nobody.
set -eu

self=mutate
tests=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=roots.sh
. "$tests/roots.sh"
make_work
format='%-52s %-7s %-7s %s\n'

mutate() { # SED-SCRIPT LINES
	rm -rf "$work/kmod"
	mkdir "$work/kmod"
	cp -r "$tests/../region.h" "$tests" "$work/kmod"
	sed -i "$1" "$work/kmod/region.h"
	changed=$(diff "$tests/../region.h" "$work/kmod/region.h" | grep -c '^<') || :
	[ "$changed" -eq "$2" ] || fail "$1 changes $changed lines"
}

passes() { # TEST ARGUMENT...
	program=$1
	shift
	gcc -std=gnu11 -O1 -w -DSTANDALONE -fsanitize=undefined,address \
		-fno-sanitize-recover=all -o "$work/$program" \
		"$work/kmod/tests/$program.c" || fail "$program does not compile"
	status=0
	timeout 300 "$work/$program" "$@" >"$work/log" 2>&1 || status=$?
	[ "$status" -ne 124 ] || fail "$program did not end"
	[ "$status" -eq 0 ]
}

# The name of a harness that fails, or nothing.
refuted() {
	{ sh "$work/kmod/tests/proof.sh" first 2>"$work/log" || :; } |
		awk '/^FAIL/ { print $2; exit }'
}

examine() { # DESCRIPTION
	unit=- model=-
	passes layout_test && passes access_test || unit=finds
	passes fuzz/region_fuzz 1000000 || model=finds
	proof=$(refuted)
	# shellcheck disable=SC2059 # the format of all rows
	printf "$format" "$1" "$unit" "$model" "${proof:--}"
	noticed=$unit$model$proof
}

total=0 found=0 proven=0
mkdir "$work/fuzz"
# shellcheck disable=SC2059
printf "$format" "CHANGE" TESTS MODEL PROOF
# Whoever complains about what is right proves nothing.
mutate '' 0
examine "(none)"
[ "$noticed" = -- ] || fail "a change is found where there is none"
while IFS='@' read -r what script; do
	mutate "$script" 1
	examine "$what" </dev/null
	total=$((total + 1))
	[ "$noticed" = -- ] || found=$((found + 1))
	[ -z "$proof" ] || proven=$((proven + 1))
done <<'MUTATIONS'
power of two: < becomes <=@s/pow && pow < size/pow \&\& pow <= size/
range: the last byte is taken for one after it@s/(base, length - 1, &last)/(base, length, \&last)/
region: mappable is not rounded down@s/= actual & ~(page_size - 1);/= actual;/
region: wrong mask for a base inside of a page@s/(base & (page_size - 1))/(base \& page_size)/
region: the largest one is refused@s/reported > 1ULL << /reported >= 1ULL << /
layout: usemem is rounded to 256 MiB@s/(512ULL << 20)/(256ULL << 20)/
layout: exactly the carve-out is -EOVERFLOW@s/length < NVGRACE_RESMEM_MIN/length <= NVGRACE_RESMEM_MIN/
layout: usemem is not rounded down@s/usemem = shown & .*/usemem = shown;/
layout: reported is rounded up from the carved-up size@s/4, base, usemem, shown,/4, base, usemem, usemem,/
layout: resmem begins where usemem does@s/2, base + usemem,/2, base,/
layout: resmem is cacheable@s/write_combined = true/write_combined = false/
access: the byte at the reported size is accepted@s/offset >= region->reported/offset > region->reported/
access: not clipped at the reported size@s/count = nvgrace_min(count, region->reported - offset)/count = count/
access: the hole is taken for memory@s/min(count, region->actual - offset)/min(count, region->reported - offset)/
mmap: part of a page at the end is accepted@s/end > region->mappable/end > region->actual/
mmap: an empty one is not refused at once@s/if (!length)$/if (0)/
mmap: memory up to the highest address is refused@s/(region->base, end - 1, &last)/(region->base, end, \&last)/
mmap: an address that wraps is accepted@s/__builtin_add_overflow(region->base, end - 1, &last))/0)/
BAR value: the size itself is masked out@s/~(region->reported - 1)) |/~region->reported) |/
BAR read: always from the first byte@s/value >> (8 \* (first + i))/value >> (8 * i)/
BAR write: the old byte stays@s/stored &= ~(0xffULL << .*/;/
config: a BAR has a byte more@s/position >= bar + NVGRACE_BAR_BYTES/position > bar + NVGRACE_BAR_BYTES/
config: a piece runs into the next BAR@s/count = nvgrace_min(count, bar - position)/count = count/
config: a piece runs out of its BAR@s/return nvgrace_min(count, bar + .*/return count;/
MUTATIONS
echo "mutate: $found of $total changes found, $proven of them by a proof"
[ "$found" -eq "$total" ]
