#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Copyright: Contributors to the nvgrace.passthrough project
#
# The kernel's own judges of style, from linux-source 7.3: checkpatch.pl
# --strict over the module and its tests' C here, and coccicheck over the module.
# Prints what they find beyond what is allowed below, and fails if there is
# anything, or if something allowed is not found any more.
set -eu

self=style
tests=$(cd "$(dirname "$0")" && pwd)
kmod=${tests%/tests}
# shellcheck source-path=SCRIPTDIR source=roots.sh
. "$tests/roots.sh"
make_work

# FILE and what coccicheck says, each with the reason.
#
# region.h is compiled where there is no kernel, too, and so without min().
cat >"$work/allowed" <<'ALLOWED'
region.h: WARNING opportunity for min()
ALLOWED

# checkpatch.pl wants to write into its tree, and coccicheck to see all of the
# module and nothing else.
# shellcheck disable=SC2016 # expanded there
checkpatch='set -eu
mkdir /tmp/tree
ln -s /src/* /tmp/tree
cd /tmp/tree
perl scripts/checkpatch.pl --strict --terse --no-summary --show-types --file "$@"'
# shellcheck disable=SC2016
coccicheck='set -eu
cp -r /mnt/module /tmp
for dir in include include/uapi arch/arm64/include arch/arm64/include/uapi; do
	LINUXINCLUDE="${LINUXINCLUDE:-} -I/src/$dir"
done
export LINUXINCLUDE srctree=/src srcroot=/tmp/module KBUILD_EXTMOD=/tmp/module
MODE=report J=$(nproc) DEBUG_FILE=/tmp/log bash /src/scripts/coccicheck || {
	tail /tmp/log
	exit 1
}
echo "$(grep -c "^/usr/bin/spatch" /tmp/log) rules"'

enter() {
	sh "$tests/enter.sh" "$root" --ro-bind "$source:/src" \
		--ro-bind /sys:/sys --ro-bind "$work:/mnt" -- "$@"
}

root=$(sh "$tests/buildroot.sh" trixie)
source=$(sh "$tests/kernel-source.sh" 7.3)
mkdir "$work/module"
cp "$kmod"/*.c "$kmod"/*.h "$work/module"
cp -r "$tests" "$work/tests"
cd "$work"
find module tests -name '*.[ch]' | sort >all
grep '^module/' all >kernel || fail "no source of the module was found"
grep '^tests/' all | xargs grep -lE '^#include <(kunit/test|linux/module)\.h>' >>kernel || :
grep -vxFf kernel all >userspace || :
bad=0

judge() { # LIST [OPTION]...
	list=$1
	shift
	# shellcheck disable=SC2046 # no file of ours has a blank in its name
	enter sh -c "$checkpatch" sh "$@" $(sed 's,^,/mnt/,' "$list") >found 2>&1 ||
		bad=$((bad + 1))
	sed 's,^/mnt/,,' found
}

judge kernel
# What is not the kernel's has C's own names (uint64_t, PRIu64), neither the
# kernel's types nor its macros, and assertions that print what they compare.
[ ! -s userspace ] || judge userspace \
	--ignore CAMELCASE,PREFER_KERNEL_TYPES,NEW_TYPEDEFS,BIT_MACRO,MACRO_ARG_UNUSED \
	--ignore PREFER_DEFINED_ATTRIBUTE_MACRO,MACRO_ARG_REUSE

enter sh -c "$coccicheck" >cocci.log 2>&1 || {
	cat cocci.log
	fail "coccicheck did not run"
}
sed -n 's,^/tmp/module/\([^:]*\):[-0-9:]* ,\1: ,p' cocci.log | sort -u >found
if ! diff -U 0 allowed found >difference; then
	sed -n '/^[-+][^-+]/p' difference
	echo "coccicheck: '+' is new, '-' was allowed and is not there:"
	grep '^/tmp/module/' cocci.log || :
	bad=$((bad + 1))
fi

[ "$bad" -eq 0 ] || fail "findings, see above"
echo "style: $(wc -l <kernel) kernel and $(wc -l <userspace) userspace files clean under" \
	"checkpatch.pl --strict; coccicheck: $(tail -n 1 cocci.log), $(wc -l <allowed) finding allowed"
