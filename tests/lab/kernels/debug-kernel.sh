#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
#
# usage: debug-kernel.sh SOURCE FRAGMENT OUT
#
# Builds the debug kernel within a Debian root that has its compiler, from the kernel source SOURCE, which is only read,
# and the configuration FRAGMENT. Afterwards OUT holds:
#   vmlinuz   the kernel
#   config    its configuration
#   modules/  its /lib/modules: what modprobe must know to accept the names of what is built in
#   tree/     what modules are built against: make -C tree M=DIR modules
#   facts     release and compiler, a line "NAME VALUE" each
set -eu
source=$1 fragment=$2 out=$3
build=$out/build

say() { echo "debug kernel: $*"; }

# Every line of the fragment that the resulting configuration does not have. An option that does not exist there at all
# is as good as "is not set".
lost_options() {
	grep -E '^(CONFIG_|# CONFIG_.* is not set$)' "$fragment" | while IFS= read -r line; do
		case $line in
		'#'*)
			option=${line#\# }
			option=${option%% *}
			! grep -qE "^$option=" "$build/.config" || echo "$line"
			;;
		*)
			grep -qxF "$line" "$build/.config" || echo "$line"
			;;
		esac
	done
}

mkdir -p "$build"
cd "$build"
make -s -C "$source" O="$build" tinyconfig
"$source/scripts/kconfig/merge_config.sh" -m -O "$build" "$build/.config" "$fragment" >merge.log
make -s olddefconfig
lost=$(lost_options)
if [ -n "$lost" ]; then
	say "the configuration lost these lines of the fragment:"
	echo "$lost"
	exit 1
fi

make -j"$(nproc)" bzImage modules
release=$(cat include/config/kernel.release)
make -s INSTALL_MOD_PATH="$out/install" modules_install
make -s run-command KBUILD_RUN_COMMAND="$source/scripts/package/install-extmod-build $out/tree"

mv "$out/install/lib/modules" "$out/modules"
rm -f "$out/modules/$release/build" "$out/modules/$release/source"
cp arch/x86/boot/bzImage "$out/vmlinuz"
cp .config "$out/config"
{
	echo "kernel_release $release"
	echo "compiler $(gcc -dumpfullversion)"
} >"$out/facts"
cd "$out"
rm -rf "$build" "$out/install"
say "built $release"
