#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Copyright: Contributors to the nvgrace.passthrough project
#
# usage: enter.sh ROOT [--bind DIR:TARGET]... [--ro-bind DIR:TARGET]... -- COMMAND...
#
# Runs a command within a Debian root of buildroot.sh, with /proc, an empty
# /tmp and the given directories mounted. The mounts are the command's own and
# end with it, as does every process that it has started.
set -eu

self=enter
tests=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=roots.sh
. "$tests/roots.sh"

usage='usage: enter.sh ROOT [--bind DIR:TARGET]... [--ro-bind DIR:TARGET]... -- COMMAND...'

# Within the namespaces: $0 is the root. Words up to "--" are mounts, made as
# MODE DIR TARGET.
# shellcheck disable=SC2016 # expanded there
inside='set -eu
mount -t proc proc "$0/proc"
mount -t tmpfs tmpfs "$0/tmp"
[ ! -e /etc/resolv.conf ] || mount --bind /etc/resolv.conf "$0/etc/resolv.conf"
while [ "$1" != -- ]; do
	mkdir -p "$0$3"
	mount --bind "$2" "$0$3"
	[ "$1" = rw ] || mount -o remount,bind,ro "$0$3"
	shift 3
done
shift
exec chroot "$0" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	HOME=/root LC_ALL=C.UTF-8 TERM="${TERM:-dumb}" DEBIAN_FRONTEND=noninteractive \
	${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
	${no_proxy:+no_proxy="$no_proxy"} "$@"'

[ "$(id -u)" -eq 0 ] || fail "this needs root, to enter a Debian root"
[ $# -ge 3 ] || fail "$usage"
root=$1
shift
[ -d "$root/proc" ] || fail "$root is no Debian root: buildroot.sh prints one"

# The mounts travel behind the command, in front of which they then go.
count=$#
mounts=0
while [ "$1" != -- ]; do
	case "$1" in
	--bind) mode=rw ;;
	--ro-bind) mode=ro ;;
	*) fail "$usage" ;;
	esac
	[ $# -ge 4 ] || fail "$usage"
	dir=${2%%:*} target=${2#*:}
	[ -d "$dir" ] || fail "$dir is no directory"
	case "$target" in
	/*) ;;
	*) fail "$2: the target is an absolute path" ;;
	esac
	shift 2
	count=$((count - 2))
	set -- "$@" "$mode" "$dir" "$target"
	mounts=$((mounts + 3))
done
# Rotates: "-- COMMAND MOUNTS" becomes "MOUNTS -- COMMAND".
while [ "$count" -gt 0 ]; do
	first=$1
	shift
	set -- "$@" "$first"
	count=$((count - 1))
done
[ $# -gt $((mounts + 1)) ] || fail "$usage"

# A root in use is not removed as outdated: see cached().
exec 8<"$root"
flock --shared 8
exec unshare --mount --pid --fork --kill-child sh -c "$inside" "$root" "$@"
