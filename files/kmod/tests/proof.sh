#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Copyright: Contributors to the nvgrace.passthrough project
#
# usage: proof.sh            prove
#        proof.sh mutate     show that faults are found: see mutate.sh
#
# Proves region.h with CBMC: every harness of tests/proof, for all page sizes
# of arm64, two at a time, in the Debian root of trixie. For each it prints how
# many properties were proven and in how many seconds. Overflow of unsigned
# sums counts as an error, too, as do loops that CBMC did not unroll entirely.
set -eu

self=proof
tests=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=roots.sh
. "$tests/roots.sh"

checks="--unsigned-overflow-check --unwinding-assertions"
# Every loop but these is over the 8 bytes of a register, or less.
bounds="--unwind 9 --unwindset nvgrace_round_up_pow2.0:66
	--unwindset proof_config_tiling.0:5"

seconds() { # SINCE, in milliseconds
	echo "$1 $(date +%s%3N)" | awk '{ printf "%.1f", ($2 - $1) / 1000 }'
}

run_cbmc() { # FILE HARNESS PAGE-SHIFT [OPTION]...; leaves the report in $report
	file=$1 harness=$2 shift=$3
	shift 3
	status=0
	# shellcheck disable=SC2086 # a list of words
	report=$(timeout 300 cbmc "$file" --function "$harness" "-DPAGE_SHIFT=$shift" \
		--drop-unused-functions $bounds "$@" 2>&1) || status=$?
}

count() { # TEXT: lines of the report with it
	echo "$report" | grep -c "$1" || [ $? -eq 1 ]
}

# Prints one line and fails where anything is not proven.
prove() { # FILE HARNESS PAGE-SHIFT
	since=$(date +%s%3N)
	verdict=ok
	run_cbmc "$1" "$2" "$3" -DPROOF_REACH --no-standard-checks --no-unwinding-assertions
	reached=$(count ': FAILURE')
	if [ "$status" -ne 10 ] || [ "$(count ': SUCCESS')" -ne 0 ]; then
		verdict=EMPTY
		echo "$report" | grep -E ': SUCCESS|rror' >&2 || echo "$report" | tail -n 3 >&2
	fi
	# shellcheck disable=SC2086
	run_cbmc "$1" "$2" "$3" $checks
	if [ "$status" -ne 0 ]; then
		verdict=FAIL
		echo "$report" | grep -E ': FAILURE|rror' >&2 || echo "$report" | tail -n 3 >&2
	fi
	printf '%-5s %-31s %2d KiB pages %5d properties %2d cases %6s s\n' "$verdict" "$2" \
		$((1 << ($3 - 10))) "$(count ': SUCCESS')" "$reached" "$(seconds "$since")"
	[ "$verdict" = ok ]
}

# Lines of FILE HARNESS PAGE-SHIFT.
harnesses() {
	for file in "$tests"/proof/*.c; do
		for size in 12 14 16; do
			sed -n "s,^void \(proof_[a-z0-9_]*\)(void)\$,$file \1 $size,p" "$file"
		done
	done
}

prove_all() {
	since=$(date +%s)
	exec 3>&1
	# Not tee(1), which would open, and empty, a file that we print to.
	table=$(harnesses | xargs -P 2 -L 1 sh "$0" one | while IFS= read -r line; do
		echo "$line" >&3
		echo "$line"
	done)
	runs=$(harnesses | wc -l)
	proven=$(echo "$table" | grep -c '^ok ' || [ $? -eq 1 ])
	properties=$(echo "$table" | awk '{ sum += $6 } END { print sum }')
	took=$(($(date +%s) - since))
	echo "proof: $proven of $runs proven ($((runs / 3)) harnesses, 3 page sizes)," \
		"$properties properties, $took s"
	[ "$proven" -eq "$runs" ]
}

# For mutate.sh: whether what fails is found matters, not what holds. 4 KiB
# pages, and no more than the first line that says FAIL.
refute() { # FILE HARNESS PAGE-SHIFT
	# shellcheck disable=SC2086
	run_cbmc "$1" "$2" "$3" $checks --stop-on-fail
	[ "$status" -eq 10 ] || return 0
	echo "FAIL $2"
	return 255 # makes xargs stop
}

within_root() { # COMMAND...
	root=$(sh "$tests/buildroot.sh" trixie)
	exec sh "$tests/enter.sh" "$root" --ro-bind "${tests%/tests}:/kmod" -- "$@"
}

case "${1:-}" in
"") within_root sh /kmod/tests/proof.sh all ;;
mutate) within_root sh /kmod/tests/mutate.sh ;;
all) prove_all ;;
one) prove "$2" "$3" "$4" ;;
first) harnesses | grep ' 12$' | xargs -P 2 -L 1 sh "$0" refute ;;
refute) refute "$2" "$3" "$4" ;;
*) fail "usage: proof.sh [mutate]" ;;
esac
