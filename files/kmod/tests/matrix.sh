#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Copyright: Contributors to the nvgrace.passthrough project
#
# Builds the module with W=1 for the kernels of Debian trixie and
# trixie-backports, for arm64 and amd64, and prints a table. Fails when a
# build does, or warns.
#
# The builds run in a Debian root of their own, because the headers want that
# suite's compiler. It is kept in the cache and made anew when this script
# changes or with NVGRACE_KMOD_FRESH=1. Needs root, mmdebstrap and an amd64
# machine. NVGRACE_DEBIAN_MIRROR overrides the mirror, which else is the one
# that apt uses here, or mmdebstrap's default.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
kmod=${here%/tests}
cache=${NVGRACE_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nvgrace-passthrough}
suite=trixie
sources="$suite $suite-backports"
root=$cache/kmod-root-$(sha256sum "$here/matrix.sh" | cut -c1-12)

fail() {
	echo "matrix: $*" >&2
	exit 1
}

[ "$(id -u)" -eq 0 ] || fail "this needs root, to make a Debian root and enter it"
[ "$(uname -m)" = x86_64 ] || fail "this cross-builds on amd64 only, not on $(uname -m)"
command -v mmdebstrap >/dev/null || fail "mmdebstrap is missing: install it"

mirror() {
	if [ -n "${NVGRACE_DEBIAN_MIRROR:-}" ]; then
		echo "$NVGRACE_DEBIAN_MIRROR"
	elif command -v apt-get >/dev/null; then
		apt-get indextargets --format '$(SITE)' 'Origin: Debian' \
			'Component: main' 'Label: Debian' | head -n 1
	fi
}

# Runs a command in root $1; objtool and apt want /proc.
enter() {
	where=$1
	shift
	unshare --mount sh -c 'mount -t proc proc "$0/proc" && exec chroot "$@"' \
		"$where" "$where" "$@"
}

# Runs within the root: unpacks the headers of each suite's kernel for both
# architectures. Not installed: the arm64 packages could not be, and the amd64
# ones bring a whole kernel along. The amd64 kbuild serves both.
unpack_headers='set -eu
cd /var/cache/apt
for source in $1; do
	version=$(apt-cache madison linux-headers-amd64 |
		awk -F"|" -v s=" $source/" "index(\$3, s) { print \$2; exit }" | tr -d " ")
	package=$(apt-cache show "linux-headers-amd64=$version" |
		sed -n "s/^Depends:.* \(linux-headers-[0-9][^ ,]*\)-amd64.*/\1/p")
	kernel=${package#linux-headers-}
	[ -n "$kernel" ] || { echo "$source has no linux-headers-amd64"; exit 1; }
	apt-get download -qq -o APT::Sandbox::User=root "$package-common" \
		"linux-kbuild-$kernel" "$package-amd64" "$package-arm64:arm64"
	echo "amd64 $kernel-amd64" >>/builds
	echo "arm64 $kernel-arm64" >>/builds
done
for deb in *.deb; do
	dpkg-deb -x "$deb" /
done
rm ./*.deb'

make_root() {
	new=$cache/tmp.kmod-root.$$
	site=$(mirror)
	trap 'rm -rf "$new"' EXIT INT TERM
	echo "making a Debian $suite root with both compilers and all headers"
	# shellcheck disable=SC2086 # no mirror: mmdebstrap's own
	mmdebstrap --quiet --variant=apt --architectures=amd64,arm64 \
		--include=gcc,make,gcc-aarch64-linux-gnu,libelf1t64,pahole,sparse \
		--skip=cleanup/apt/lists \
		--customize-hook='site=$(sed -n "s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*/\2/p" "$1/etc/apt/sources.list" | head -n 1)
			echo "deb $site '"$suite"'-backports main" >>"$1/etc/apt/sources.list"
			chroot "$1" apt-get update -qq' \
		"$suite" "$new" $site
	enter "$new" sh -c "$unpack_headers" sh "$sources" ||
		fail "the kernel headers could not be unpacked"
	rm -rf "$cache"/kmod-root-*
	mv "$new" "$root"
	trap - EXIT INT TERM
}

# Builds for kernel $1, architecture $2 with the make arguments that follow.
build() {
	kernel=$1 arch=$2
	shift 2
	cross=
	[ "$arch" = amd64 ] || cross="ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-"
	rm -rf "$root/build"
	mkdir "$root/build"
	cp "$kmod"/*.c "$kmod"/*.h "$kmod"/*.sh "$kmod"/Kbuild "$root/build"
	# shellcheck disable=SC2086 # a list of words
	enter "$root" make -C "/usr/src/linux-headers-$kernel" M=/build W=1 \
		$cross "$@" modules >"$root/build.log" 2>&1
}

mkdir -p "$cache"
exec 9>"$cache/kmod-root.lock"
flock 9
if [ ! -d "$root" ] || [ -n "${NVGRACE_KMOD_FRESH:-}" ]; then
	make_root
fi

bad=0
printf '%-24s %-6s %-7s %-8s %-8s %s\n' KERNEL ARCH BUILD WARNINGS SPARSE SECONDS
while read -r arch kernel; do
	start=$(date +%s)
	result=ok sparse=-
	build "$kernel" "$arch" || result=FAILED
	warnings=$(grep -c 'warning:' "$root/build.log" || [ $? -eq 1 ])
	seconds=$(($(date +%s) - start))
	cp "$root/build.log" "$root/build-$kernel.log"
	# Kernels that want a newer sparse than Debian's say so and go on.
	if build "$kernel" "$arch" C=2 && ! grep -q 'sparse is not available' "$root/build.log"; then
		sparse=$(grep -cE '^(/build/)?[a-z.]+:[0-9]+:[0-9]+: (warning|error)' "$root/build.log" || [ $? -eq 1 ])
	fi
	printf '%-24s %-6s %-7s %-8s %-8s %s\n' "$kernel" "$arch" "$result" "$warnings" "$sparse" "$seconds"
	case "$result $warnings $sparse" in
	"ok 0 0" | "ok 0 -") ;;
	*)
		bad=$((bad + 1))
		tail -n 20 "$root/build-$kernel.log"
		;;
	esac
done <"$root/builds"

[ "$bad" -eq 0 ] || fail "$bad builds failed or warned"
