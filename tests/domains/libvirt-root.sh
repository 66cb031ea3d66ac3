#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
#
# usage: libvirt-root.sh bookworm|trixie|forky
#
# Prints the directory of a Debian root with that suite's libvirt, QEMU for
# aarch64 and x86_64, and their firmware. /guest in the root of trixie has, for
# arm64 and amd64, the kernel and the static busybox that guests are made of.
# Kept in the cache and made anew when what it is made from changes. Needs
# root; mmdebstrap is installed where it is missing.
set -eu

self=libvirt-root
kmod_tests=$(cd "$(dirname "$0")/../../files/kmod/tests" && pwd)
# shellcheck disable=SC2034 # roots.sh wants it
tests=$kmod_tests
# shellcheck source-path=SCRIPTDIR source=../../files/kmod/tests/roots.sh
. "$kmod_tests/roots.sh"

suite=${1:-}
case "$suite" in
bookworm | trixie | forky) ;;
*) fail "usage: libvirt-root.sh bookworm|trixie|forky" ;;
esac
packages="libvirt-clients libvirt-daemon libvirt-daemon-driver-qemu
	qemu-system-arm qemu-system-x86 qemu-efi-aarch64 ovmf"
[ "$suite" = bookworm ] || packages="$packages libvirt-daemon-log"

# forky's Release file is renewed only when the suite changes, and expires.
options='Acquire::Check-Valid-Until "false"'

# Runs in the root of trixie.
# shellcheck disable=SC2016 # expanded there
fetch_guests='set -eu
mkdir -p /guest
cd /guest
for arch in arm64 amd64; do
	dpkg --add-architecture "$arch"
done
apt-get update -qq
for arch in arm64 amd64; do
	image=$(apt-cache depends --important "linux-image-$arch:$arch" |
		sed -n "s/^ *Depends: \(linux-image-[0-9][^:]*\).*/\1/p" | head -n 1)
	echo "libvirt-root: fetching $image and busybox for $arch" >&2
	apt-get download -qq -o APT::Sandbox::User=root "$image:$arch" "busybox-static:$arch"
	mkdir tree
	for deb in ./*.deb; do
		dpkg-deb --fsys-tarfile "$deb" | tar -x -C tree --wildcards "./boot/vmlinuz-*" 2>/dev/null ||
			dpkg-deb --fsys-tarfile "$deb" | tar -x -C tree --wildcards "*bin/busybox"
	done
	mkdir "$arch"
	mv tree/boot/vmlinuz-* "$arch/vmlinuz"
	mv "$(find tree -path "*bin/busybox" -type f)" "$arch/busybox"
	rm -r tree ./*.deb
done'

make_root() { # DIR
	progress "making a Debian $suite root with libvirt and QEMU"
	# No mirror: mmdebstrap's own.
	# shellcheck disable=SC2046,SC2086 # lists of words
	mmdebstrap --quiet --variant=apt --aptopt="$options" \
		--aptopt='APT::Install-Recommends "false"' \
		--include="$(echo $packages | tr -s ' \n\t' ',')" \
		--skip=cleanup/apt/lists "$suite" "$1" $(mirror) &&
		touch "$1/etc/resolv.conf" &&
		if [ "$suite" = trixie ]; then
			sh "$kmod_tests/enter.sh" "$1" -- sh -c "$fetch_guests"
		fi
}

[ "$(id -u)" -eq 0 ] || fail "this needs root, to make a Debian root and enter it"
command -v mmdebstrap >/dev/null || install_mmdebstrap

cached "libvirt-root-$suite" "$(echo "$suite $packages $fetch_guests" | digest)" make_root
