# SPDX-License-Identifier: GPL-2.0-only
# Copyright: Contributors to the nvgrace.passthrough project
# shellcheck shell=sh disable=SC2034,SC2154
#
# Building a module within a Debian root, for scripts that build. To be
# sourced after roots.sh, with $work set to an empty directory.

# Chooses a kernel and an architecture, and leaves in
#   root      the Debian root with its headers
#   headers   the directory of the headers in that root
#   kernel    Debian's name of the kernel
#   cross     what make needs to know of the architecture
select_kernel() { # VERSION ARCHITECTURE
	version=$1 arch=$2
	case "$version" in
	6.1) suite=bookworm ;;
	7.2) suite=forky ;;
	*) suite=trixie ;;
	esac
	root=$(sh "$tests/buildroot.sh" "$suite")
	headers=$(awk -v v="$version" -v a="$arch" '$1 == v && $2 == a { print $3 }' "$root/kernels")
	[ -n "$headers" ] || fail "the root of $suite has no headers of $version for $arch"
	kernel=${headers##*/linux-headers-}
	cross=
	[ "$arch" = amd64 ] || cross="ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-"
	select_scripts
}

# The headers of 7.2 and 7.3 lack a script, without which kbuild takes every
# sparse for outdated. $scripts is a copy of kbuild's with it.
select_scripts() {
	kbuild=$(readlink -f "$root${headers%-"$arch"}-common/scripts")
	case "$kbuild" in
	"$root"/*) kbuild=${kbuild#"$root"} ;;
	esac
	scripts=$work/scripts-$version
	[ ! -d "$scripts" ] || return 0
	cp -a "$root$kbuild" "$scripts"
	checker=$(sh "$tests/kernel-source.sh" "$version")/scripts/checker-valid.sh
	if [ -e "$checker" ] && [ ! -e "$scripts/checker-valid.sh" ]; then
		cp -a "$checker" "$scripts"
	fi
}

# A copy of the module's source.
copy_module() { # DIR
	mkdir -p "$1"
	cp "$kmod"/*.c "$kmod"/*.h "$kmod"/*.sh "$kmod"/Kbuild "$kmod"/Makefile "$1"
}

# Builds in $3, a directory below TARGET, where DIR is mounted, and writes
# LOG. $altered may name a directory of changed headers in place of
# include/linux.
compile() { # DIR TARGET BUILD-DIRECTORY LOG [MAKE-ARGUMENT]...
	mounted=$1 target=$2 at=$3 log=$4
	shift 4
	# shellcheck disable=SC2086 # $cross is a list of words
	sh "$tests/enter.sh" "$root" --bind "$mounted:$target" \
		--ro-bind "$scripts:$kbuild" \
		${altered:+--ro-bind "$altered:${headers%-"$arch"}-common/include/linux"} -- \
		make -C "$at" "KDIR=$headers" "-j$(nproc)" $cross "$@" modules \
		>"$log" 2>&1
}

# How many lines of file $1 are a warning or an error, of whatever program.
complaints() {
	grep -ciE 'warning|error:' "$1" || [ $? -eq 1 ]
}
