#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
#
# usage: stock.sh ROOT SHELF PACKAGE...
#
# Lays packages, and what they need that the image does not have, onto a shelf of the image without installing them: the
# host has no network to get a boot loader or a second kernel from. Downloaded with the apt that builds the image.
set -eu
directory=$1/usr/share/nvgrace-lab/packages/$2
shift 2
mkdir -p "$directory"
APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get --yes --allow-downgrades --download-only \
    -o "Dir::Cache::Archives=$directory" install "$@"
rm -rf "$directory/lock" "$directory/partial"
test -n "$(ls "$directory")"
