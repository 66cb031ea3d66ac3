#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
# Adds the backports line next to the suite's own line: same mirror, same options, whatever mirror that is.
set -eu
list=$1/etc/apt/sources.list
sed -n "s/^\(deb .*\) $SUITE /\1 $SUITE-backports /p" "$list" > "$list.d/backports.list"
test -s "$list.d/backports.list"
