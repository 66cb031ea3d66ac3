# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which boot loader hands the command line to the kernel, and where it takes the arguments from."""

from __future__ import annotations

from .._core.host import Host
from .facts import Bootloader

GRUB_DROPIN_DIR = "/etc/default/grub.d"
GRUB_DROPIN = f"{GRUB_DROPIN_DIR}/71-nvgrace-passthrough.cfg"
KERNEL_INSTALL_DIR = "/etc/kernel"
KERNEL_INSTALL_CMDLINE = f"{KERNEL_INSTALL_DIR}/cmdline"

GRUB_CFG = "/boot/grub/grub.cfg"
ENTRIES_DIR = "/boot/loader/entries"
# Where the EFI system partition, or the boot partition beside it, is mounted.
ESP_MOUNTS = ("/boot/efi", "/efi", "/boot")

# Vendor GUID of the Boot Loader Interface; the variable's text is UTF-16 behind four bytes of attributes.
_LOADER_INFO = "/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
_SYSTEMD_BOOT_CONFIG = tuple(f"{mount}/loader/loader.conf" for mount in ESP_MOUNTS)
_OTHER_LOADERS = (GRUB_CFG, "/boot/grub2/grub.cfg", "/boot/extlinux/extlinux.conf", "/boot/boot.scr",
                  "/boot/firmware/cmdline.txt", "/etc/lilo.conf", "/etc/zipl.conf")


def read_bootloader(host: Host) -> Bootloader:
    """Recognises the boot loader by its own files; the loader that booted this system comes before one that is merely
    installed beside it."""
    if _booted_by_systemd_boot(host):
        return _systemd_boot(host)
    if host.exists(GRUB_CFG) and host.which("update-grub"):
        return Bootloader("grub", GRUB_DROPIN_DIR)
    if host.which("grubby") and host.listdir(ENTRIES_DIR):
        return Bootloader("bls", ENTRIES_DIR)
    if any(host.exists(path) for path in _SYSTEMD_BOOT_CONFIG):
        return _systemd_boot(host)
    if any(host.exists(path) for path in _OTHER_LOADERS) or host.listdir(ENTRIES_DIR):
        return Bootloader("unknown", None)
    return Bootloader("none", None)


def _booted_by_systemd_boot(host: Host) -> bool:
    data = host.read_bytes(_LOADER_INFO)
    return data is not None and data[4:].decode("utf-16-le", "replace").startswith("systemd-boot")


def _systemd_boot(host: Host) -> Bootloader:
    if not host.which("kernel-install"):
        return Bootloader("unknown", None)
    return Bootloader("systemd-boot", KERNEL_INSTALL_DIR)
