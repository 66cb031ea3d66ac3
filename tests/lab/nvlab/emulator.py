# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""QEMU that knows vfio-user-pci: the machine's own where it is new enough, else one from Debian's backports.

The backported one is only unpacked, never installed, and run through its own dynamic loader: no chroot, no mounts.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .cache import Cache
from .errors import LabError
from .machine import debian_arch, debian_mirror
from .processes import BUILD_MARK
from .recipe import ASSETS, BACKPORTS, EMULATOR_PACKAGES, SUITE, emulator_key
from .steps import run_logged, step

VFIO_USER_SINCE = (10, 1)
TRIPLET = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
LOADER = {"amd64": "ld-linux-x86-64.so.2", "arm64": "ld-linux-aarch64.so.1"}
ARM_FIRMWARE = "usr/share/AAVMF/AAVMF_CODE.no-secboot.fd"
# (architecture, Secure Boot) -> UEFI, and its variables on a new machine. Those for Secure Boot have Microsoft's keys,
# by which Debian's shim is signed.
FIRMWARE = {
    ("arm64", False): (ARM_FIRMWARE, "usr/share/AAVMF/AAVMF_VARS.fd"),
    ("arm64", True): ("usr/share/AAVMF/AAVMF_CODE.secboot.fd", "usr/share/AAVMF/AAVMF_VARS.ms.fd"),
    ("amd64", False): ("usr/share/OVMF/OVMF_CODE_4M.fd", "usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("amd64", True): ("usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "usr/share/OVMF/OVMF_VARS_4M.ms.fd"),
}
DATA_DIRECTORIES = ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu")


@dataclass(frozen=True)
class Emulator:
    """Where QEMU is. ``root`` is "/" for the machine's own."""

    root: Path

    def command(self, program: str) -> list[str]:
        """Return the argv that runs one of QEMU's programs, such as qemu-img."""
        if self.root == Path("/"):
            return [program]
        arch = debian_arch()
        libraries = self.root / "usr/lib" / TRIPLET[arch]
        return [str(libraries / LOADER[arch]), "--library-path", str(libraries), str(self.root / "usr/bin" / program)]

    def data_options(self) -> list[str]:
        """Return the options that tell a system emulator where its firmware and ROMs are."""
        return [word for path in DATA_DIRECTORIES for word in ("-L", str(self.root / path))]

    @property
    def arm_firmware(self) -> Path:
        """Return the UEFI image for the virt machine; ACPI tables reach the kernel through it."""
        return self.root / ARM_FIRMWARE

    def firmware(self, arch: str, secure_boot: bool) -> Path:
        """Return the UEFI image for a host that firmware boots."""
        return self.root / FIRMWARE[arch, secure_boot][0]

    def new_variables(self, arch: str, secure_boot: bool) -> bytes:
        """Return the flash with the variables of a machine that has never run."""
        return (self.root / FIRMWARE[arch, secure_boot][1]).read_bytes()

    @property
    def user_aarch64(self) -> Path:
        """Return the static user-mode emulator for arm64 programs."""
        return self.root / "usr/bin/qemu-aarch64"


def parse_version(text: str) -> tuple[int, int]:
    """Return (major, minor) from ``qemu-system-X --version``; raises LabError on anything else."""
    match = re.search(r"version (\d+)\.(\d+)", text)
    if match is None:
        raise LabError(f"Cannot read QEMU's version from {text!r}.")
    return int(match[1]), int(match[2])


def own_emulator() -> Emulator | None:
    """Return the machine's own QEMU when it is complete and new enough."""
    programs = ["qemu-system-aarch64", "qemu-system-x86_64", "qemu-img", "qemu-io"]
    files = [path for paths in FIRMWARE.values() for path in paths]
    if any(shutil.which(name) is None for name in programs) or not all((Path("/") / path).exists() for path in files):
        return None
    answer = subprocess.run([programs[0], "--version"], check=True, capture_output=True, text=True)
    return Emulator(Path("/")) if parse_version(answer.stdout) >= VFIO_USER_SINCE else None


def _unpack(target: Path, log: Path) -> None:
    mirror = debian_mirror()
    run_logged(
        ["mmdebstrap", "--mode=root", "--variant=extract", "--format=directory",
         "--aptopt=Acquire::Check-Valid-Until \"false\"",
         "--aptopt=APT::Install-Recommends \"false\"",
         f"--aptopt=APT::Default-Release \"{BACKPORTS}\"",
         f"--setup-hook=SUITE={SUITE} {ASSETS / 'backports.sh'} \"$1\"",
         f"--include={','.join(EMULATOR_PACKAGES)}",
         SUITE, str(target / "root"), *([mirror] if mirror else [])],
        log, {BUILD_MARK: str(target)},
    )


def cached_emulator(cache: Cache) -> Path:
    """Return the directory of the cached emulator, whether it exists or not."""
    return cache.entry(f"emulator-{debian_arch()}-{emulator_key()}")


def find_emulator(cache: Cache) -> Emulator | None:
    """Return a usable emulator without building one."""
    own = own_emulator()
    if own is not None:
        return own
    entry = cached_emulator(cache)
    return Emulator(entry / "root") if entry.is_dir() else None


def provide_emulator(cache: Cache) -> Emulator:
    """Return a usable emulator, unpacking one from Debian's backports when the machine has none."""
    found = find_emulator(cache)
    if found is not None:
        return found
    entry = cached_emulator(cache)
    with step(f"unpack QEMU from {BACKPORTS}"):
        cache.provide(entry.name, lambda target: _unpack(target, cache.new_log(entry.name)))
    return Emulator(entry / "root")
