# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host in a directory: files are written by name, programs are small scripts that log how they were called."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.host import FileState, Host
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.facts import (
    Bootloader,
    LibvirtFeatures,
    QemuFeatures,
)
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.gather import gather_facts
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.modprobe import ModuleIndex
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.state import HostState, Record


class Tree:
    """The root directory of a made-up host."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.host = Host(str(root))

    def write(self, path: str, content: str | bytes = "") -> None:
        real = self.root / path.lstrip("/")
        real.parent.mkdir(parents=True, exist_ok=True)
        real.write_bytes(content if isinstance(content, bytes) else content.encode())

    def read(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_text()

    def has(self, path: str) -> bool:
        return (self.root / path.lstrip("/")).exists()

    def program(self, name: str, script: str = "") -> None:
        """A program that appends its arguments to /calls and then runs ``script``."""
        self.write(f"/usr/sbin/{name}", f'#!/bin/sh\necho "{name} $*" >> {self.root}/calls\n{script}\n')
        os.chmod(self.root / "usr/sbin" / name, 0o755)

    def calls(self) -> list[str]:
        return self.read("/calls").splitlines() if self.has("/calls") else []

    def snapshot(self) -> dict[str, bytes]:
        """Every file below /etc, /boot and the state directory."""
        return {str(path.relative_to(self.root)): path.read_bytes()
                for top in ("etc", "boot", "var") for path in sorted((self.root / top).rglob("*")) if path.is_file()}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


RELEASE = "7.3.4+deb13-arm64"


@pytest.fixture
def grace(tree: Tree) -> Tree:
    """A Debian 13 Grace host with everything in place, as the emulated one shows itself."""
    tree.write("/proc/sys/kernel/osrelease", RELEASE + "\n")
    tree.write("/proc/sys/kernel/arch", "aarch64\n")
    tree.write("/proc/sys/kernel/random/boot_id", "11111111-2222-3333-4444-555555555555\n")
    tree.write("/proc/version", "Linux version 7.3.4+deb13-arm64 (gcc-14)\n")
    tree.write("/proc/cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/vda rw quiet\n")
    tree.write("/proc/modules", "vfio_pci 16384 0 - Live 0x0\n")
    tree.write("/proc/interrupts", "           CPU0\n 24:  9  ITS-PCI-MSIX-0000:00:02.0   0 Edge  virtio1-config\n")
    tree.write("/proc/self/limits", "Max locked memory         8388608              67108864             bytes     \n")
    tree.write(f"/boot/config-{RELEASE}",
               "CONFIG_NODES_SHIFT=4\n# CONFIG_IOMMUFD is not set\nCONFIG_KVM=y\nCONFIG_VFIO_PCI=m\n")
    tree.write(f"/lib/modules/{RELEASE}/build/Makefile")
    tree.write(f"/lib/modules/{RELEASE}/modules.dep", "kernel/drivers/gpu/drm/nouveau/nouveau.ko.xz: a.ko.xz\n")
    tree.write(f"/lib/modules/{RELEASE}/modules.builtin", "kernel/drivers/iommu/arm/arm-smmu-v3/arm_smmu_v3.ko\n")
    tree.write("/etc/os-release", 'ID=debian\nVERSION_ID="13"\n')
    tree.write("/etc/modprobe.d/site.conf", "# ours\n blacklist nouveau\n")
    tree.write("/sys/class/iommu/smmu3.0x0000000009050000/x")
    for group in range(3):
        tree.write(f"/sys/kernel/iommu_groups/{group}/type", "identity\n" if group == 2 else "DMA\n")
    tree.write("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0")
    tree.write("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "0")
    tree.write("/sys/devices/system/node/has_generic_initiator", "1-8\n")
    for node in range(9):
        tree.write(f"/sys/devices/system/node/node{node}/cpulist", "" if node else "0-1\n")
        tree.write(f"/sys/devices/system/node/node{node}/meminfo", f"Node {node} MemTotal: {0 if node else 4096} kB\n")
        tree.write(f"/sys/devices/system/node/node{node}/distance", "10 80\n")
    tree.write("/sys/firmware/efi/efivars/Boot0000-x", b"\x07\0\0\0")
    tree.write("/sys/firmware/acpi/tables/DSDT", b"DSDT" + bytes(40))
    tree.write("/sys/firmware/acpi/tables/SSDT1", b"SSDT..nvidia,gpu-mem-base-pa\0..nvidia,gpu-mem-size\0")
    tree.write("/sys/kernel/security/lockdown", "[none] integrity confidentiality\n")
    return tree


@pytest.fixture
def facts(grace: Tree) -> Any:
    """The facts of that host with libvirt, QEMU and a KVM that has capability 243."""
    found = gather_facts(grace.host)
    return replace(
        found,
        kvm=replace(found.kvm, present=True, cacheable_pfnmap=True, reason=None),
        iommu=replace(found.iommu, iommufd=True, cdev=True), coherent_gpus=1,
        libvirt_features=LibvirtFeatures(True, True, True, True, True, True, True),
        qemu_features=QemuFeatures(True, True, True, True, True, True, False, False),
        libvirt=replace(found.libvirt, present=True, version="11.3.0", daemon_running=True, uri_ok=True, reason=None),
        qemu=replace(found.qemu, present=True, version="10.0.13", path="/usr/bin/qemu-system-aarch64"),
        dkms=replace(found.dkms, present=True), compiler=replace(found.compiler, present=True))


@pytest.fixture
def state() -> HostState:
    """A bare GRUB host as host_config sees it: nothing set, nothing of ours."""
    paths = ("/etc/default/grub.d/71-nvgrace-passthrough.cfg", "/etc/kernel/cmdline",
             "/etc/apt/preferences.d/71-nvgrace-passthrough",
             "/etc/modprobe.d/nvgrace-passthrough.conf", "/etc/modules-load.d/nvgrace-passthrough-host.conf",
             "/etc/security/limits.d/71-nvgrace-passthrough.conf",
             "/etc/systemd/system/libvirtd.service.d/71-nvgrace-passthrough.conf",
             "/etc/tmpfiles.d/nvgrace-passthrough-hugepages.conf")
    nothing: frozenset[str] = frozenset()
    return HostState(
        release=RELEASE, boot_id="boot-1", processor="arm", has_iommu=True,
        bootloader=Bootloader("grub", "/etc/default/grub.d"),
        cmdline=("root=/dev/vda", "quiet"), loader_cmdline=("root=/dev/vda", "quiet"),
        kernels=((RELEASE, f"/boot/vmlinuz-{RELEASE}"),), boot_entries=(),
        files={path: FileState(None) for path in paths}, originals={},
        modules=ModuleIndex(nothing, nothing, nothing, nothing), hugepages={2 << 20: 0, 1 << 30: 2},
        libvirt_units=("libvirtd.service",), running_memlock={}, initramfs="update-initramfs",
        has_apt=True, record=Record({}))
