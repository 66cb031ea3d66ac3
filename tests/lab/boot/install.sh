#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
#
# usage: install.sh LOADER TARGET ARGUMENTS
#
# Runs on a host whose root is /dev/vda2 and whose /dev/vda1 is to be the EFI system partition: installs a boot loader with
# Debian's own tools. TARGET is what grub-install calls the platform, ARGUMENTS are the kernel's.
set -eu
loader=$1 target=$2 arguments=$3
shelf=/usr/share/nvgrace-lab/packages
export DEBIAN_FRONTEND=noninteractive

dpkg -i "$shelf/$loader"/dosfstools_*.deb
mkfs.vfat -F 32 -n NVLAB-ESP /dev/vda1
udevadm settle
root=$(findmnt -no UUID /)
esp=$(blkid -s UUID -o value /dev/vda1)
sed -i '/^\/dev\/vda /d' /etc/fstab
# On a busy machine it takes the host longer than systemd's 90 seconds to see its disk: it would end in emergency mode.
late=x-systemd.device-timeout=15min
cat >> /etc/fstab <<END
UUID=$root / ext4 rw,noatime,$late 0 1
UUID=$esp /boot/efi vfat umask=0077,$late 0 0
END
mkdir -p /boot/efi
mount /boot/efi

case $loader in
grub)
    mkdir -p /etc/default/grub.d
    cat > /etc/default/grub.d/10-nvgrace-lab.cfg <<CFG
# What an emulated host needs whatever its tests do with the command line.
GRUB_TIMEOUT=0
GRUB_CMDLINE_LINUX="$arguments"
# The ACPI tables of the GPU memory, which a real host's firmware has.
GRUB_EARLY_INITRD_LINUX_CUSTOM="nvgrace-lab-acpi.cpio"
CFG
    dpkg -i "$shelf/$loader"/*.deb
    # Without variables, because the next host that boots from this disk has others: the path for removable media is
    # where every firmware looks.
    grub-install --target="$target" --uefi-secure-boot --no-nvram --force-extra-removable
    update-grub
    ;;
systemd-boot)
    printf 'root=UUID=%s rw quiet %s\n' "$root" "$arguments" > /etc/kernel/cmdline
    mkdir -p /etc/kernel/install.d
    cat > /etc/kernel/install.d/40-nvgrace-lab-acpi.install <<'PLUGIN'
#!/bin/sh
# The ACPI tables of the GPU memory, which a real host's firmware has: what is called microcode goes before the initrd.
set -eu
test "$1" != add || cp /boot/nvgrace-lab-acpi.cpio "$KERNEL_INSTALL_STAGING_AREA/microcode-nvgrace-lab"
PLUGIN
    chmod 0755 /etc/kernel/install.d/40-nvgrace-lab-acpi.install
    dpkg -i "$shelf/$loader"/*.deb
    test -e /boot/efi/EFI/BOOT/BOOT*.EFI || bootctl install --no-variables
    printf 'timeout 0\n' > /boot/efi/loader/loader.conf
    for kernel in /lib/modules/*; do
        kernel-install add "${kernel##*/}" "/boot/vmlinuz-${kernel##*/}"
    done
    ;;
esac
# Only the second kernel is still to be installed.
find "$shelf" -mindepth 1 -maxdepth 1 ! -name kernel -exec rm -r {} +
sync
