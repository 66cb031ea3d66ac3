#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
# usage: suite.sh OTHER ROOT: adds another suite next to the image's own, from the same mirror, for the kernel only. The
# kernel's packages come from there, and of the others what it cannot do without. Asking apt for "linux-image/OTHER" would
# draw the makers of the initrd in as well. linux-base is taken from where it is newer.
set -eu
other=$1 apt=$2/etc/apt
sed -n "s/^\(deb .*\) $SUITE /\1 $other /p" "$apt/sources.list" > "$apt/sources.list.d/$other.list"
test -s "$apt/sources.list.d/$other.list"
pin() { printf 'Package: %s\nPin: release n=%s\nPin-Priority: %s\n\n' "$1" "$other" "$2"; }
{
    pin 'linux-image-* linux-base-* linux-binary-* linux-modules-*' 990
    pin linux-base 500
    pin '*' 100
} > "$apt/preferences.d/$other"
