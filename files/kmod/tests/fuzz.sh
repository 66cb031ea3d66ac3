#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Copyright: Contributors to the nvgrace.passthrough project
#
# usage: fuzz.sh [CASES]
#
# Runs libFuzzer on region.h, ten million cases unless told otherwise, under
# the address and undefined behaviour sanitizers and with unsigned sums that
# wrap as errors, in the Debian root of trixie. The same cases on every run.
set -eu

self=fuzz
tests=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=roots.sh
. "$tests/roots.sh"

cases=${1:-10000000}

# shellcheck disable=SC2016 # expanded there
inside='set -eu
clang -std=gnu11 -O1 -g -Wall -Wextra -Werror -fno-sanitize-recover=all \
	-fsanitize=fuzzer,address,undefined,unsigned-integer-overflow \
	-o /tmp/fuzz /kmod/tests/fuzz/region_fuzz.c
mkdir /tmp/corpus
/tmp/fuzz -seed=1 -runs="$1" -max_len=106 -len_control=0 -print_final_stats=1 \
	-artifact_prefix=/tmp/ /tmp/corpus >/tmp/log 2>&1 || {
	tail -n 40 /tmp/log
	exit 1
}
awk "/number_of_executed_units/ { cases = \$2 }
	/average_exec_per_sec/ { speed = \$2 }
	/DONE/ { covered = \$4; inputs = \$8 }
	END { printf \"fuzz: %d cases agree with the model, %d a second, %d edges, corpus %s\\n\",
		cases, speed, covered, inputs }" /tmp/log'

root=$(sh "$tests/buildroot.sh" trixie)
exec sh "$tests/enter.sh" "$root" --ro-bind "${tests%/tests}:/kmod" -- \
	sh -c "$inside" sh "$cases"
