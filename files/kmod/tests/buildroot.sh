#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Copyright: Contributors to the nvgrace.passthrough project
#
# usage: buildroot.sh bookworm|trixie|forky
#
# Prints the directory of a Debian root with that suite's compilers for amd64
# and arm64, sparse, and the headers of its kernels for both: kernel headers
# want the compiler and the C library that they were made with. /kernels in it
# lists them, a line of VERSION ARCHITECTURE DIRECTORY each. The root of trixie
# has what builds and examines a whole kernel as well.
#
# It is kept in the cache and made anew when what it is made from changes, or
# with NVGRACE_KMOD_FRESH=1. Needs root and an amd64 machine;
# mmdebstrap is installed where it is missing.
# NVGRACE_DEBIAN_MIRROR overrides the mirror, which else is the one that apt
# uses here, or mmdebstrap's default. enter.sh runs commands in it.
set -eu

self=buildroot
tests=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=roots.sh
. "$tests/roots.sh"

suite=${1:-}
packages="gcc gcc-aarch64-linux-gnu libc6-dev make pahole sparse xz-utils"
newer=
case "$suite" in
bookworm)
	kernels=6.1
	;;
trixie)
	kernels="6.12 7.3"
	newer=$suite-backports
	packages="$packages bc bison ca-certificates cbmc clang coccinelle cpio
		dkms dwarves flex kmod libc6-dev-arm64-cross libcap-dev
		libclang-rt-19-dev libdw-dev libelf-dev libnuma-dev libpython3.13
		libssl-dev llvm ocaml perl python3 python3-ply rsync uuid-dev zstd"
	;;
forky)
	kernels=7.2
	;;
*)
	fail "usage: buildroot.sh bookworm|trixie|forky"
	;;
esac

# forky's Release file is renewed only when the suite changes, and expires.
options='Acquire::Check-Valid-Until "false"'

# Its status counts, not what "set -e" would do: see cached().
make_root() { # DIR
	progress "making a Debian $suite root with the headers of $kernels"
	# No mirror: mmdebstrap's own.
	# shellcheck disable=SC2046,SC2086 # lists of words
	mmdebstrap --quiet --variant=apt --architectures=amd64,arm64 \
		--aptopt="$options" --aptopt='APT::Install-Recommends "false"' \
		--include="$(echo $packages | tr ' ' ,)" \
		--skip=cleanup/apt/lists "$suite" "$1" $(mirror) &&
		touch "$1/etc/resolv.conf" &&
		sh "$tests/enter.sh" "$1" -- sh -s -- "$suite" "$newer" $kernels \
			<"$tests/root-headers.sh"
}

[ "$(id -u)" -eq 0 ] || fail "this needs root, to make a Debian root and enter it"
[ "$(uname -m)" = x86_64 ] || fail "this cross-builds on amd64 only, not on $(uname -m)"
command -v mmdebstrap >/dev/null || install_mmdebstrap

key=$({
	echo "$suite $newer $kernels $packages"
	cat "$tests/root-headers.sh"
} | digest)
cached "kmod-root-$suite" "$key" make_root
