# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Whether this machine's KVM can run a lab. /dev/kvm proves nothing: it can open and still not boot a kernel."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from .argv import KVM, TCG
from .emulator import Emulator
from .image import Image
from .machine import debian_arch
from .recipe import Arch
from .steps import say

DEVICE = Path("/dev/kvm")
PROBE_SECONDS = 5.0
PROBE_MARK = b"GUEST-UP"


def _probe_argv(arch: Arch, emulator: Emulator, image: Image) -> list[str]:
    # virtualization=on as in the lab itself: a machine whose KVM cannot nest gives the lab no /dev/kvm.
    machine = "virt,virtualization=on,gic-version=3" if arch.name == "arm64" else "q35,kernel-irqchip=split"
    return [*emulator.command(f"qemu-system-{arch.qemu}"), *emulator.data_options(),
            "-machine", machine, "-accel", "kvm", "-cpu", "host", "-m", "512", "-nodefaults", "-no-user-config",
            "-display", "none", "-serial", "stdio", "-kernel", str(image.guest_kernel), "-initrd", str(image.tiny),
            "-append", f"console={arch.console} quiet panic=-1"]


def boots_probe_guest(argv: list[str]) -> bool:
    """Return whether the tiny guest says within five seconds that its userland runs."""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as guest:
        try:
            return _reads_mark(guest)
        finally:
            guest.kill()


def _reads_mark(guest: subprocess.Popen[bytes]) -> bool:
    if guest.stdout is None:
        return False
    os.set_blocking(guest.stdout.fileno(), False)
    seen = b""
    deadline = time.monotonic() + PROBE_SECONDS
    while time.monotonic() < deadline and guest.poll() is None:
        seen += guest.stdout.read() or b""
        if PROBE_MARK in seen:
            return True
        time.sleep(0.1)
    return PROBE_MARK in seen + (guest.stdout.read() or b"")


def choose_accel(arch: Arch, emulator: Emulator, image: Image) -> str:
    """Return "kvm" where the architectures match and a probe guest boots, else "tcg"."""
    if arch.name != debian_arch() or not os.access(DEVICE, os.R_OK | os.W_OK):
        return TCG
    if boots_probe_guest(_probe_argv(arch, emulator, image)):
        return KVM
    say(f"    {DEVICE} opens but boots no guest within {PROBE_SECONDS:.0f} s; using software emulation")
    return TCG
