#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Copyright: Contributors to the nvgrace.passthrough project
#
# Builds the KUnit suite of region.h without a warning and runs it in a
# user-mode kernel 7.3, a process: Debian's kernels have no KUnit. That kernel
# is built once, in some minutes, and kept in the cache.
set -eu

self=kunit
tests=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=roots.sh
. "$tests/roots.sh"

config='CONFIG_64BIT=y
CONFIG_BINFMT_ELF=y
CONFIG_BINFMT_SCRIPT=y
CONFIG_FUTEX=y
CONFIG_HOSTFS=y
CONFIG_KUNIT=y
CONFIG_MODULES=y
CONFIG_NULL_CHAN=y
CONFIG_PRINTK=y
CONFIG_PROC_FS=y
CONFIG_STDERR_CONSOLE=y'

# shellcheck disable=SC2016 # expanded in the root
build_kernel='set -eu
make -s -C /src ARCH=um O=/out tinyconfig
echo "$1" >/out/wanted
cd /out
/src/scripts/kconfig/merge_config.sh -m .config wanted >/dev/null
make -s ARCH=um olddefconfig
while read -r line; do
	grep -qxF "$line" .config || { echo "$line is lost" >&2; exit 1; }
done <wanted
make -s "-j$(nproc)" ARCH=um vmlinux modules'

# /work is a copy of the module with its tests.
# shellcheck disable=SC2016
build_suite='make -s -C /out ARCH=um M=/work/tests/kunit W=1 modules'

# The end of init is a panic, and that the end of the process.
# shellcheck disable=SC2016
run_suite='printf "%s\n" "#!/bin/sh" "insmod /work/tests/kunit/nvgrace-region-kunit.ko" >/work/init
chmod +x /work/init
ulimit -c 0
timeout 300 /out/vmlinux mem=128M rootfstype=hostfs rw init=/work/init panic=-1 \
	con=null con0=null,fd:2 </dev/null 2>&1 || :'

make_kernel() { # DIR
	progress "building a user-mode kernel 7.3"
	mkdir "$1"
	sh "$tests/enter.sh" "$root" --ro-bind "$source:/src" --bind "$1:/out" -- \
		sh -c "$build_kernel" sh "$config"
}

within_root() { # COMMAND
	sh "$tests/enter.sh" "$root" --ro-bind "$source:/src" --bind "$kernel:/out" \
		--bind "$work:/work" -- sh -c "$1"
}

source=$(sh "$tests/kernel-source.sh" 7.3)
root=$(sh "$tests/buildroot.sh" trixie)
key=$(echo "${source##*/} ${root##*/} $config $build_kernel" | digest)
kernel=$(cached kmod-kunit "$key" make_kernel)

make_work
cp -r "${tests%/tests}/region.h" "$tests" "$work"
within_root "$build_suite" >"$work/build" 2>&1 || {
	cat "$work/build" >&2
	fail "the suite does not build"
}
if [ -s "$work/build" ]; then
	cat "$work/build" >&2
	fail "the suite builds with warnings"
fi
within_root "$run_suite" >"$work/log" 2>&1

# KTAP: " ok 1 name", deeper for each parameter, and the totals.
grep -E '^( {4})?((not )?ok|# (nvgrace-region|Totals):)' "$work/log" || :
totals=$(sed -n 's/^# Totals: pass:\([1-9][0-9]*\) fail:0 skip:0 .*/\1/p' "$work/log")
if [ -z "$totals" ] || ! grep -q '^ok 1 nvgrace-region' "$work/log"; then
	tail -n 30 "$work/log" >&2
	fail "the suite did not pass"
fi
echo "kunit: $totals results, all ok"
