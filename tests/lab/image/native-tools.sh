#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
#
# Puts this machine's own dpkg-deb and depmod, with their loader and libraries, into a foreign root ($1) as /native:
# decompressing packages and indexing modules is a third of an emulated installation and need not be emulated.
# dpkg and the packages' scripts find them by DPkg::Path; customize.sh removes them.
set -eu
native=$1/native
mkdir -p "$native/programs"
for tool in dpkg-deb depmod; do
    program=$(PATH=$PATH:/usr/sbin:/sbin command -v "$tool") || continue
    ldd "$program" | awk '$2 == "=>" { print $3 }' | xargs cp -t "$native"
    cp -L "$(ldd "$program" | awk '/ld-linux/ { print $1 }')" "$native/loader"
    cp -L "$program" "$native/programs/$tool"   # a program like kmod goes by the name it is called with
    printf '#!/bin/sh\nexec /native/loader --library-path /native /native/programs/%s "$@"\n' "$tool" > "$native/$tool"
    chmod 0755 "$native/$tool"
done

# Packages ask for an initrd twice, at two minutes of emulation for both; customize.sh makes the one that counts.
printf '#!/bin/sh\n' > "$native/update-initramfs"
chmod 0755 "$native/update-initramfs"
