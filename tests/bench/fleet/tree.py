# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The root of a simulated host: a GB200 with four GPUs that NVIDIA's driver has, the one of the unit tests, with what
else site.yml reads and calls. It lies over the root of this machine, whose interpreters and shells it uses."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import mounts

from ansible_collections.nvgrace.passthrough.tests.unit._domain.descriptions import slit
from ansible_collections.nvgrace.passthrough.tests.unit._gpu import fake_sysfs
from ansible_collections.nvgrace.passthrough.tests.unit._gpu.trees import gb200
from ansible_collections.nvgrace.passthrough.tests.unit._kmod import elf

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
UNIT = ROOT / "tests" / "unit"
KERNEL = fake_sysfs.KERNEL
MODULE = "nvgrace-gpu-vfio-pci"
SHIM = "opt/fleet"
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13")
# The machine's own would show through: these hosts have only what is made here.
OPAQUE = ("sys", "run", "tmp", "boot", "root", "home", "dev", "etc/modprobe.d", "etc/modules-load.d",
          "etc/udev/rules.d", "etc/default/grub.d", "etc/dkms", "etc/libvirt", "usr/lib/modules", "usr/share/qemu",
          "usr/share/libvirt", "var/lib/dkms", "var/lib/nvgrace-passthrough")
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LOGIN, LOGIN_ID = "operator", 4200

_CONFIG = """\
CONFIG_ARM64_4K_PAGES=y
CONFIG_ARM_SMMU_V3=y
CONFIG_NODES_SHIFT=6
CONFIG_KVM=y
CONFIG_VFIO=m
CONFIG_VFIO_PCI=m
CONFIG_VFIO_GROUP=y
CONFIG_NVGRACE_GPU_VFIO_PCI=m
"""


def make_tree(root: Path) -> None:
    """Makes the tree in ``root``, an empty directory of a file system that knows trusted attributes. Needs root."""
    host = gb200(root)
    _kernel(host)
    _programs(root)
    _users(host)
    _devices(root)
    # /lib is a link on the machine below, which a directory here would hide.
    shutil.move(root / "lib", root / "usr" / "lib")
    for name in OPAQUE:
        directory = root / name
        directory.mkdir(parents=True, exist_ok=True)
        os.setxattr(directory, "trusted.overlay.opaque", b"y")
    (root / "tmp").chmod(0o1777)


def _kernel(host: fake_sysfs.FakeHost) -> None:
    """What the kernel shows beside its GPUs, as a Debian host with a kernel that brings the driver."""
    host.write("/proc/sys/kernel/arch", "aarch64\n")
    host.write("/proc/version", f"Linux version {KERNEL}\n")
    host.write("/proc/cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/vda rw quiet\n")
    host.write("/proc/modules", "nvidia 16384 0 - Live 0x0\n")
    host.write("/proc/interrupts", " 24:  9  ITS-PCI-MSIX-0000:00:02.0   0 Edge  virtio1-config\n")
    host.write("/sys/class/iommu/smmu3.0x0000000009050000/x")
    for group in host.listdir("/sys/kernel/iommu_groups"):
        host.write(f"/sys/kernel/iommu_groups/{group}/type", "DMA\n")
    for node, row in enumerate(slit(2, 2)):
        base = f"/sys/devices/system/node/node{node}"
        host.write(f"{base}/cpulist", f"{72 * node}-{72 * node + 71}\n" if node < 2 else "\n")
        host.write(f"{base}/distance", " ".join(map(str, row)) + "\n")
    host.write("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0\n")
    host.write("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "0\n")
    host.write("/sys/firmware/efi/efivars/Boot0000-x", b"\x07\0\0\0")
    host.write("/sys/firmware/acpi/tables/SSDT1", b"SSDT..nvidia,gpu-mem-base-pa\0..nvidia,gpu-mem-size\0")
    host.write("/sys/kernel/security/lockdown", "[none] integrity confidentiality\n")
    host.write("/etc/os-release", 'ID=debian\nVERSION_ID="13"\n')
    host.write("/etc/default/grub", 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n')
    host.write("/boot/grub/grub.cfg", "menuentry\n")
    for name, text in ((f"config-{KERNEL}", _CONFIG), (f"vmlinuz-{KERNEL}", ""), (f"initrd.img-{KERNEL}", "")):
        host.write(f"/boot/{name}", text)
    modules = f"/lib/modules/{KERNEL}"
    alias = "vfio_pci:v000010DEd00002941sv*sd*bc*sc*i*"
    host.write(f"{modules}/kernel/drivers/vfio/pci/nvgrace-gpu/{MODULE}.ko", elf.module(KERNEL, "KERNEL", alias))
    host.write(f"{modules}/modules.dep", f"kernel/drivers/vfio/pci/nvgrace-gpu/{MODULE}.ko:\n"
                                         "kernel/drivers/gpu/drm/nouveau/nouveau.ko:\n")
    host.write(f"{modules}/modules.builtin", "")
    host.write("/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd")
    host.write("/usr/share/AAVMF/AAVMF_VARS.fd")
    host.write("/usr/share/libvirt/schemas/domaincommon.rng", '<element name="ras">\n')
    host.write("/usr/share/libvirt/schemas/cputypes.rng", '<attribute name="clusters">\n')


def _programs(root: Path) -> None:
    """The programs of a host, an interpreter for each Python that this machine has, and what they load."""
    programs = root / "usr" / "local" / "sbin"
    shutil.copytree(HERE / "programs", programs)
    # no playbook shall find the machine's own
    for directory in ("usr/sbin", "usr/bin"):
        (root / directory).mkdir(parents=True, exist_ok=True)
        for name in ("shutdown", "reboot"):
            shutil.copy(HERE / "programs" / "shutdown", root / directory / name)
            (root / directory / name).chmod(0o755)
    shutil.copytree(HERE / "shim", root / SHIM)
    for fake in (UNIT / "_gpu" / "fake_sysfs.py", UNIT / "_vfio" / "fake_kernel.py"):
        shutil.copy(fake, root / SHIM)
    # The checkout itself may lie where the hosts show nothing of this machine.
    borrowed, namespace = root / mounts.BORROWED, root / SHIM / "checkout" / "ansible_collections" / "nvgrace"
    (borrowed / "checkout").mkdir(parents=True)
    (borrowed / "checkout.from").symlink_to(ROOT)
    namespace.mkdir(parents=True)
    (namespace / "passthrough").symlink_to(f"/{mounts.BORROWED}/checkout")
    for version in ("3", *PYTHONS):
        interpreter = shutil.which(f"python{version}", path="/usr/bin:/usr/local/bin") or _borrow(root, version)
        if interpreter:
            (programs / f"python{version}").write_text(
                f'#!/bin/sh\nexport PYTHONPATH=/{SHIM} PYTHONDONTWRITEBYTECODE=1\n'
                f'LD_LIBRARY_PATH=/{mounts.BORROWED}/{version}/lib exec {interpreter} "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)


def _borrow(root: Path, version: str) -> str:
    """The path on the hosts of a Python that pyenv has here, or nothing. Homes are not shown there, so it is mounted
    elsewhere: mounts.py does that for each link in BORROWED."""
    home = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = sorted(home.glob(f"versions/{version}.*"))
    if not found:
        return ""
    (root / mounts.BORROWED / version).mkdir(parents=True)
    (root / mounts.BORROWED / f"{version}.from").symlink_to(found[-1])
    return f"/{mounts.BORROWED}/{version}/bin/python{version}"


def interpreters(root: Path) -> list[str]:
    """The Python versions that the hosts of a tree can run modules with."""
    return [version for version in PYTHONS if (root / "usr/local/sbin" / f"python{version}").exists()]


def _users(host: fake_sysfs.FakeHost) -> None:
    """A user who may become root without a password."""
    for name, line in (("passwd", f"{LOGIN}:x:{LOGIN_ID}:{LOGIN_ID}::/home/{LOGIN}:/bin/sh"),
                       ("group", f"{LOGIN}:x:{LOGIN_ID}:"), ("shadow", f"{LOGIN}:*:19000:0:99999:7:::")):
        host.write(f"/etc/{name}", Path(f"/etc/{name}").read_text() + line + "\n")
    host.write("/etc/sudoers", f"root ALL=(ALL) ALL\n{LOGIN} ALL=(ALL) NOPASSWD: ALL\n")
    os.chmod(host.base / "etc/sudoers", 0o440)
    os.chmod(host.base / "etc/shadow", 0o640)
    home = host.base / "home" / LOGIN
    home.mkdir(parents=True)
    os.chown(home, LOGIN_ID, LOGIN_ID)


def _devices(root: Path) -> None:
    devices = root / "dev"
    devices.mkdir(exist_ok=True)
    for name, (major, minor) in DEVICES.items():
        os.mknod(devices / name, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
        (devices / name).chmod(0o666)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (devices / name).symlink_to(f"/proc/self/{target}" if name != "fd" else target)
    (devices / "shm").mkdir(mode=0o1777)
    # A node that is no KVM: that capability cannot be asked for here, and preflight says so.
    (devices / "kvm").touch()
