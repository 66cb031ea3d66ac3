#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
# Runs on the machine that builds the image, with the image's root directory as $1 and PUBLIC_KEY in the environment.
set -eu
root=$1

install -d -m 0700 "$root/root/.ssh"
printf '%s\n' "$PUBLIC_KEY" > "$root/root/.ssh/authorized_keys"
chmod 0600 "$root/root/.ssh/authorized_keys"
printf 'grace\n' > "$root/etc/hostname"
printf 'nameserver 10.0.2.3\n' > "$root/etc/resolv.conf"

chroot "$root" systemctl enable systemd-networkd.service
# libvirtd exits after two idle minutes by default and is then started again by its socket; a start costs seconds of
# emulated time, so it stays.
printf 'LIBVIRTD_ARGS=""\n' > "$root/etc/default/libvirtd"
# Nothing here may compete with a test for the two emulated processors, or wait for a network that is already up.
chroot "$root" systemctl mask systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer man-db.timer
# Services that other hosts need and this one does not; the generator looks for a vsock that QEMU does not give.
chroot "$root" systemctl mask systemd-binfmt.service libvirt-guests.service
mkdir -p "$root/etc/systemd/system-generators"
ln -s /dev/null "$root/etc/systemd/system-generators/systemd-ssh-generator"

# What only the build needed (native-tools.sh).
rm -rf "$root/native"
sed -i '/^DPkg::Path /d' "$root/etc/apt/apt.conf.d/99mmdebstrap"

# One name for the kernel, whatever its version: nested guests boot it too.
version=$(cd "$root/lib/modules" && ls)
test -e "$root/boot/initrd.img-$version" || chroot "$root" update-initramfs -c -k "$version"
ln -sf "vmlinuz-$version" "$root/boot/vmlinuz"
ln -sf "initrd.img-$version" "$root/boot/initrd.img"

# Without these systemd believes that /usr has changed and runs ldconfig and the catalogue update at the first boot.
touch "$root/etc/.updated" "$root/var/.updated"
# A machine-id of its own is made at the first boot.
: > "$root/etc/machine-id"
