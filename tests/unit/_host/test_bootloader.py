# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which boot loader a host has."""

from __future__ import annotations

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.bootloader import read_bootloader

LOADER_INFO = "/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
GRUB, SD_BOOT = "/boot/grub/grub.cfg", "/boot/efi/loader/loader.conf"
ENTRY = "/boot/loader/entries/a.conf"


@pytest.mark.parametrize(("paths", "programs", "kind", "dropin_dir"), [
    ([GRUB], ["update-grub"], "grub", "/etc/default/grub.d"),
    ([GRUB, SD_BOOT], ["update-grub", "kernel-install"], "grub", "/etc/default/grub.d"),
    ([GRUB], [], "unknown", None),
    ([SD_BOOT], ["kernel-install"], "systemd-boot", "/etc/kernel"),
    ([SD_BOOT], [], "unknown", None),
    (["/boot/grub2/grub.cfg", ENTRY], ["grubby"], "bls", "/boot/loader/entries"),
    ([ENTRY], [], "unknown", None),
    (["/boot/extlinux/extlinux.conf"], [], "unknown", None),
    (["/boot/vmlinuz"], ["kernel-install", "update-grub"], "none", None),
])
def test_bootloader_by_its_files(tree, paths, programs, kind, dropin_dir):
    for path in paths:
        tree.write(path)
    for program in programs:
        tree.program(program)
    found = read_bootloader(tree.host)
    assert (found.kind, found.dropin_dir) == (kind, dropin_dir)


@pytest.mark.parametrize(("loader", "kind"), [("systemd-boot 257.8", "systemd-boot"), ("GRUB 2.12", "grub")])
def test_the_loader_that_booted_comes_first(tree, loader, kind):
    tree.write(LOADER_INFO, b"\6\0\0\0" + loader.encode("utf-16-le"))
    tree.write(GRUB)
    tree.program("update-grub")
    tree.program("kernel-install")
    assert read_bootloader(tree.host).kind == kind
