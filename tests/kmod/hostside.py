# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""What the behaviour tests share: expected regions, the GPU under test, small helpers. Runs on the emulated host."""

from __future__ import annotations

import os
import signal
import struct
import threading
import time
import unittest
from dataclasses import dataclass
from typing import Callable, Optional

from vfio_client import CONFIG_REGION, Device

MIB = 1 << 20
GIB = 1 << 30
PAGE = os.sysconf("SC_PAGE_SIZE")
PCI_COMMAND = 4
COMMAND_MEMORY = 2
OUR_MODULE = "nvgrace_gpu_vfio_pci"
# The module under test; its driver directory in sysfs has the same name.
MODULE = os.environ.get("GPU_MODULE", OUR_MODULE)
MODULE_FILE = os.environ.get("GPU_MODULE_FILE", f"/root/kmod/{MODULE}/nvgrace-gpu-vfio-pci.ko")
OURS = MODULE == OUR_MODULE
DRIVER = "/sys/bus/pci/drivers/" + MODULE


@dataclass(frozen=True)
class Expected:
    """An emulated region as the contract has it, in bytes."""

    actual: int
    reported: int
    base: int = 0

    @property
    def mappable(self) -> int:
        """Return the actual size in whole pages, which is what mmap can give."""
        return self.actual // PAGE * PAGE


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()


def expected_regions(memory: int, mig_bug: bool, layout: str, base: int = 0) -> dict[int, Expected]:
    """Return the emulated regions by VFIO index."""
    if layout == "bar2":
        return {2: Expected(memory, _power_of_two(memory), base)}
    if not mig_bug:
        return {4: Expected(memory, _power_of_two(memory), base)}
    shown = memory - GIB
    usemem = shown // (512 * MIB) * 512 * MIB
    resmem = memory - usemem
    return {4: Expected(usemem, _power_of_two(shown), base), 2: Expected(resmem, _power_of_two(resmem), base + usemem)}


# Set by environment: the tests run as plain unittest on a host that has nothing else.
ADDRESS = os.environ.get("GPU_ADDRESS", "0000:00:10.0")
MEMORY = int(os.environ.get("GPU_MEMORY", 2560 * MIB))
MEMORY_BASE = int(os.environ.get("GPU_MEMORY_BASE", 8 * GIB))
MIG_BUG = os.environ.get("GPU_MIG_BUG", "1") == "1"
LAYOUT = os.environ.get("GPU_LAYOUT", "mainline")
DEVICE = "/sys/bus/pci/devices/" + ADDRESS
KERNEL = tuple(int(part) for part in os.uname().release.split(".")[:2])
ARM64 = os.uname().machine == "aarch64"
READY_AFTER = float(os.environ.get("GPU_READY_AFTER", "6"))
EXPECTED = expected_regions(MEMORY, MIG_BUG, LAYOUT, MEMORY_BASE)


class DeviceTest(unittest.TestCase):
    """A test that opens the device for itself."""

    longMessage = False  # a message that is given says all, in one clause

    def setUp(self) -> None:
        """Open: which resets the device and so gives each test the same start."""
        self.device = Device(ADDRESS)
        self.addCleanup(self.device.close)

    def set_command(self, value: int) -> None:
        """Write PCI_COMMAND."""
        self.device.write(CONFIG_REGION, PCI_COMMAND, struct.pack("<H", value))

    def command(self) -> int:
        """Read PCI_COMMAND."""
        return struct.unpack("<H", self.device.config(PCI_COMMAND, 2))[0]

    def assert_errno(self, code: int, call: Callable, *args: object, **kwargs: object) -> None:
        """Fail unless the call raises OSError with that errno."""
        with self.assertRaises(OSError) as caught:
            call(*args, **kwargs)
        self.assertEqual(caught.exception.errno, code, caught.exception)

    def assert_reads(self, index: int, offset: int, expected: bytes) -> None:
        """Fail unless one read of a region gives these bytes; the message names the first that differs."""
        answer = self.device.read(index, offset, len(expected))
        self.assertEqual(len(answer), len(expected), f"region {index}: a read of {len(expected)} returns {len(answer)}")
        wrong = next((at for at, (got, want) in enumerate(zip(answer, expected)) if got != want), None)
        self.assertIsNone(wrong, f"region {index}: byte {wrong} of a read of {len(expected)} at {offset:#x} is wrong")


def capability(device: Device, wanted: int) -> int:
    """Return where in config space a PCI capability is. Raises RuntimeError without it."""
    position = device.config(0x34, 1)[0]
    while position:
        cap_id, following = device.config(position, 2)
        if cap_id == wanted:
            return position
        position = following
    raise RuntimeError(f"the function has no PCI capability {wanted:#x}")


def write_once(path: str, text: str) -> None:
    """Write a sysfs attribute by one write; a buffered file would try again when the first one failed."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def kernel_mappings() -> list:
    """Return the kernel's own mappings of GPU memory, as lines of /proc/vmallocinfo."""
    with open("/proc/vmallocinfo", encoding="ascii") as stream:
        lines = stream.readlines()
    starts = {expected.base for expected in EXPECTED.values()}
    return [line for line in lines if any(f"phys=0x{start:016x}" in line for start in starts)]


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call took."""
    start = time.monotonic()
    call()
    return time.monotonic() - start


def in_thread(call: Callable[[], object]) -> Background:
    """Start a call in a thread of its own."""
    return Background(call)


class Background:
    """A call in a thread; join() returns its result or raises what it raised."""

    def __init__(self, call: Callable[[], object]) -> None:
        """Start."""
        self._call = call
        self._result: object = None
        self._error: Optional[BaseException] = None
        self.started = time.monotonic()
        self.ended = 0.0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:  # handed over to join()
            self._error = error
        self.ended = time.monotonic()

    def running(self) -> bool:
        """Return whether the call has not ended."""
        return self._thread.is_alive()

    def join(self) -> object:
        """Wait for the end."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result


def in_child(call: Callable[[], object]) -> int:
    """Run a call in a forked child and return its exit status, minus the signal's number when one ended it."""
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        try:
            call()
        except BaseException:  # the status says so
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
