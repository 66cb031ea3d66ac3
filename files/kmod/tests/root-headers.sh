#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Copyright: Contributors to the nvgrace.passthrough project
#
# usage: root-headers.sh SUITE NEWER-SUITE|"" VERSION...
#
# Runs within a root that is being made, see buildroot.sh. Unpacks the headers
# of the kernels for both architectures. They are not installed: those for
# arm64 could not be, and those for amd64 bring a whole kernel along. The amd64
# kbuild serves both.
set -eu

suite=$1 newer=$2
shift 2
site=$(sed -n 's/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*/\2/p' /etc/apt/sources.list | head -n 1)
work=/var/cache/apt/headers
mkdir "$work"
cd "$work"

fetch() {
	apt-get download -qq -o APT::Sandbox::User=root "$@"
}

# Adds suite $1, which installs nothing unless asked for by name.
add_suite() {
	echo "deb $site $1 main" >"/etc/apt/sources.list.d/$1.list"
	printf 'Package: *\nPin: release n=%s\nPin-Priority: 1\n' "$1" \
		>"/etc/apt/preferences.d/$1"
	apt-get update -qq
}

# The newest linux-headers package of kernel $1 for architecture $2, without
# the flavours (cloud, rt).
headers_package() {
	apt-cache pkgnames "linux-headers-$1." |
		grep -E "^linux-headers-$1\.[0-9.]+([-+][a-z0-9~]+)?-$2\$" |
		sort -V | tail -n 1
}

[ -z "$newer" ] || add_suite "$newer"

for version in "$@"; do
	amd64=$(headers_package "$version" amd64)
	[ -n "$amd64" ] || {
		echo "$suite $newer: no linux-headers of $version" >&2
		exit 1
	}
	echo "$amd64" >&2
	kernel=${amd64%-amd64}
	kbuild=$(apt-cache show "$amd64" |
		sed -n 's/^Depends:.*\(linux-kbuild-[^ ,]*\).*/\1/p' | head -n 1)
	fetch "$amd64" "$kernel-arm64:arm64" "$kernel-common" "$kbuild"
	for arch in amd64 arm64; do
		echo "$version $arch /usr/src/$kernel-$arch" >>/kernels
	done
done
# Older packages bring /lib along, which is a link here.
for deb in *.deb; do
	dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C /
done
rm ./*.deb

# trixie's sparse does not understand the headers of 7.3, forky's does, and
# needs no other package than trixie's C library.
if [ "$suite" = trixie ]; then
	add_suite forky
	fetch sparse/forky
	mkdir new
	dpkg-deb -x sparse_*.deb new
	install new/usr/bin/sparse /usr/local/bin/sparse
	rm /etc/apt/sources.list.d/forky.list /etc/apt/preferences.d/forky
	apt-get update -qq
fi
rm -r "$work"
