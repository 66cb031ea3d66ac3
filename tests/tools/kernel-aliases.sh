#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
#
# usage: kernel-aliases.sh
#
# Prints a directory that has, for each kernel of the Debian root of trixie and
# each architecture, a directory RELEASE with modules.alias, as depmod makes it
# where the package is installed, and the package's modules.builtin.modinfo.
# The kernel packages are fetched with apt in that root, so from the mirror
# that apt uses here. Kept in the cache, by the releases. Needs root and an
# amd64 machine, as buildroot.sh does.
set -eu

self=kernel-aliases
tests=$(cd "$(dirname "$0")/../../files/kmod/tests" && pwd)
# shellcheck source-path=SCRIPTDIR source=../../files/kmod/tests/roots.sh
. "$tests/roots.sh"

# Runs in the root, in an empty directory: RELEASE ARCHITECTURE pairs. Newer
# kernels are divided into several packages of the same release.
# shellcheck disable=SC2016 # expanded there
make_aliases='set -eu
cd /mnt
exec 7>/run/fetch.lock
flock 7
apt-get update -qq
while [ $# -gt 0 ]; do
	release=$1 arch=$2
	shift 2
	echo "kernel-aliases: fetching the modules of $release" >&2
	for part in image base binary modules; do
		apt-cache pkgnames "linux-$part-$release" | grep -Fx "linux-$part-$release" || true
	done >packages
	test -s packages
	sed "s/\$/:$arch/" packages | xargs apt-get download -qq -o APT::Sandbox::User=root
	mkdir -p tree/usr/lib "$release"
	ln -s usr/lib tree/lib
	for deb in ./*.deb; do
		dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C tree
	done
	depmod -b tree "$release"
	mv "tree/lib/modules/$release/modules.alias" \
		"tree/lib/modules/$release/modules.builtin.modinfo" "$release"
	rm -r tree packages ./*.deb
done'

make_all() { # DIR
	mkdir "$1"
	# shellcheck disable=SC2046 # a list of words
	sh "$tests/enter.sh" "$root" --bind "$1:/mnt" -- sh -c "$make_aliases" sh $(releases)
}

# RELEASE ARCHITECTURE for each line of the root: VERSION ARCHITECTURE HEADERS
releases() {
	sed 's|^[^ ]* \([^ ]*\) /usr/src/linux-headers-\(.*\)$|\2 \1|' "$root/kernels"
}

root=$(sh "$tests/buildroot.sh" trixie)
cached kernel-aliases "$({
	echo "$make_aliases"
	releases
} | digest)" make_all
