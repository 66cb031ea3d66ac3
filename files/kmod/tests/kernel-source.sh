#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Copyright: Contributors to the nvgrace.passthrough project
#
# usage: kernel-source.sh 6.1|6.12|7.2|7.3
#
# Prints the directory of Debian's linux-source of that version, fetched with
# apt and kept in the cache. 7.3 is the whole tree, which a kernel can be built
# from; of the others there is what concerns VFIO, and the scripts. It is
# fetched anew when a new root of buildroot.sh has headers of another release.
set -eu

self=kernel-source
tests=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=roots.sh
. "$tests/roots.sh"

version=${1:-}
parts="drivers/vfio include/linux/vfio* include/uapi/linux/vfio* scripts"
case "$version" in
6.1) suite=bookworm ;;
6.12) suite=trixie ;;
7.2) suite=forky ;;
7.3) suite=trixie parts= ;;
*) fail "usage: kernel-source.sh 6.1|6.12|7.2|7.3" ;;
esac

# Runs in the root, in an empty directory: the parts that follow the version,
# or all.
# shellcheck disable=SC2016 # expanded there
unpack='set -eu
cd /mnt
package=linux-source-$1 archive=./usr/src/linux-source-$1.tar.xz
shift
exec 7>/run/fetch.lock
flock 7
apt-get update -qq
apt-get download -qq -o APT::Sandbox::User=root "$package"
dpkg-deb --fsys-tarfile "$package"_*.deb | tar -xO "$archive" |
	tar -xJ --strip-components=1 --wildcards --no-wildcards-match-slash "$@"
rm "$package"_*.deb'

make_source() { # DIR
	progress "fetching and unpacking linux-source-$version"
	mkdir "$1"
	set -f
	patterns=
	for part in $parts; do
		patterns="$patterns */$part"
	done
	# shellcheck disable=SC2086 # a list of words
	sh "$tests/enter.sh" "$root" --bind "$1:/mnt" -- \
		sh -c "$unpack" sh "$version" $patterns
}

root=$(sh "$tests/buildroot.sh" "$suite")
key=$({
	echo "$parts $unpack"
	grep "^$version " "$root/kernels"
} | digest)
cached "kernel-source-$version" "$key" make_source
