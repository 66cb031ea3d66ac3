# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Fault injection: the first, second, ... thing of a system call that can fail is made to fail, until none is left.

/proc/thread-self/fail-nth counts allocations (slab and pages) and copies to and from user memory of one thread. Every
injection has to end in success or in a clean error, and the call has to work afterwards.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import re
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Callable, Optional

import cdev_client
import vfio_client as vfio
from hostside import ADDRESS, DEVICE, DRIVER, EXPECTED, PAGE
from stress_ops import CDEV, PMD, OpenDevice, check_works

DEBUGFS = Path("/sys/kernel/debug")
# More than any call has.
MOST = 2000
CHECK_EACH = 25
STACK_DEPTH = 32
ACPICA = re.compile(r"acpi_(?:ds|ev|ex|hw|ns|ps|rs|tb|ut)_[a-z0-9_]+")
# What a failed allocation or copy may become.
CLEAN = {errno.ENOMEM, errno.EFAULT}

_libc = ctypes.CDLL(None, use_errno=True)
Call = Callable[[], int]


class FaultError(Exception):
    """An injection had another effect than it may have."""


def _acpi_interpreter() -> tuple:
    """Return where in the kernel ACPICA begins and ends, by its functions' names: /proc/kallsyms."""
    lines = (line.split() for line in Path("/proc/kallsyms").read_text(encoding="ascii").splitlines())
    symbols = {words[2]: int(words[0], 16) for words in lines if words[1] in "tT" and len(words) == 3}
    places = [address for name, address in symbols.items()
              if ACPICA.fullmatch(name) and address < symbols["_etext"]]
    return min(places), max(places)


def enable() -> None:
    """Have all allocations fail-able, also those that may wait, and no message for each.

    But none of the ACPI interpreter, which pci_enable_device() asks for the interrupt's route: after one that failed
    it uses memory that it has freed (KASAN: acpi_ns_get_attached_object), and knows less than before until a reboot.
    """
    start, end = _acpi_interpreter()
    for capability in ("failslab", "fail_page_alloc"):
        for name, value in (("ignore-gfp-wait", "N"), ("reject-start", hex(start)), ("reject-end", hex(end)),
                            ("stacktrace-depth", str(STACK_DEPTH))):
            (DEBUGFS / capability / name).write_text(value, encoding="ascii")
    for capability in ("failslab", "fail_page_alloc", "fail_usercopy"):
        (DEBUGFS / capability / "verbose").write_text("0", encoding="ascii")


class Injector:
    """The fail-nth file of this thread."""

    def __init__(self) -> None:
        """Open it."""
        self._fd = os.open("/proc/thread-self/fail-nth", os.O_RDWR | os.O_CLOEXEC)
        self._buffer = ctypes.create_string_buffer(16)

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)

    def around(self, number: int, call: Call) -> tuple:
        """Make a call with its number-th possibility of failure taken; return errno or 0, and whether it was reached.

        The call returns a negative value with ctypes' errno on failure.
        """
        text = str(number).encode()
        _libc.pwrite(self._fd, text, len(text), 0)
        result = call()
        code = ctypes.get_errno() if result < 0 else 0
        # Still armed, this read is what fails; and so it tells as much.
        left = _libc.pread(self._fd, self._buffer, 15, 0)
        reached = left > 0 and int(self._buffer.raw[:left].split()[0].rstrip(b"\0")) == 0
        while _libc.pwrite(self._fd, b"0", 1, 0) < 0:
            pass
        return code, reached


def inject(name: str, prepared: Callable, recover: Optional[Callable[[], None]] = None) -> Counter:
    """Inject into each possibility of failure of one call; return how often each errno (0 is success) came of it.

    ``prepared`` gives a context that yields the call, anew for each number. Raises FaultError.
    """
    outcomes: Counter = Counter()
    injector = Injector()
    try:
        for number in range(1, MOST):
            with prepared() as call:
                code, reached = injector.around(number, call)
            if recover:
                recover()
            if code and code not in CLEAN:
                raise FaultError(f"{name}, failure {number}: {errno.errorcode.get(code, code)}")
            if not reached:
                if code:
                    raise FaultError(f"{name} fails without an injection: {errno.errorcode.get(code, code)}")
                check_works()
                return outcomes
            outcomes[code] += 1
            if number % CHECK_EACH == 0 and recover:
                check_works()
    finally:
        injector.close()
    raise FaultError(f"{name} had more than {MOST} possibilities to fail")


@contextmanager
def _sysfs_write(path: str) -> Iterator[Call]:
    text = ADDRESS.encode()
    fd = os.open(path, os.O_WRONLY)
    try:
        yield lambda: _libc.write(fd, text, len(text))
    finally:
        os.close(fd)


def _unbound() -> object:
    if os.path.exists(DEVICE + "/driver"):
        with _sysfs_write(DRIVER + "/unbind") as unbind:
            unbind()
    return _sysfs_write(DRIVER + "/bind")


def _bind() -> None:
    """Bind if it is not bound. Raises FaultError."""
    if os.path.exists(DEVICE + "/driver"):
        return
    with _sysfs_write(DRIVER + "/bind") as bind:
        if bind() < 0:
            raise FaultError(f"the function cannot be bound afterwards: {os.strerror(ctypes.get_errno())}")


class Ioctl:
    """An ioctl with a structure, whose bytes it fills again before each call."""

    def __init__(self, fd: int, number: int, data: bytes) -> None:
        """Prepare it."""
        self._arguments = fd, ctypes.c_ulong(number), ctypes.create_string_buffer(data, len(data))

    def __call__(self) -> int:
        """Make the call."""
        return int(_libc.ioctl(*self._arguments))


class GroupOnly(vfio.Device):
    """The group in its container; the device is left alone."""

    def _device_fd(self, address: str) -> int:
        return -1


class HalfOpen:
    """A device that is about to be opened: all but the call that opens it."""

    def __init__(self, stack: ExitStack) -> None:
        """Open the group and its container, or the character device and an iommufd."""
        self._opened: list = []
        if CDEV:
            iommufd = self._open("/dev/iommu")
            self.fd = self._open(cdev_client.cdev_path(ADDRESS))
            self.call: Call = Ioctl(self.fd, cdev_client.BIND_IOMMUFD, struct.pack("=IIiIQ", 24, 0, iommufd, 0, 0))
        else:
            group = GroupOnly(ADDRESS)
            stack.callback(group.close)
            get = Ioctl(group.group, vfio.GROUP_GET_DEVICE_FD, ADDRESS.encode() + b"\0")
            self.call = lambda: self._keep(get())
        stack.callback(self.close)

    def _open(self, path: str) -> int:
        self._opened.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        return int(self._opened[-1])

    def _keep(self, fd: int) -> int:
        if fd >= 0:
            self._opened.append(fd)
        return fd

    def last(self) -> int:
        """Return the open device's file, which is then the caller's."""
        return int(self._opened.pop())

    def close(self) -> None:
        """Close what was opened, the device first."""
        while self._opened:
            os.close(self._opened.pop())


@contextmanager
def _opening() -> Iterator[Call]:
    with ExitStack() as stack:
        yield HalfOpen(stack).call


@contextmanager
def _closing() -> Iterator[Call]:
    with ExitStack() as stack:
        half = HalfOpen(stack)
        if half.call() < 0:
            raise FaultError("the device cannot be opened")
        fd = half.last()
        yield lambda: _libc.close(fd)


@contextmanager
def _opened(make: Callable[[vfio.Device], Call]) -> Iterator[Call]:
    with OpenDevice(ADDRESS) as device:
        yield make(device)


def _absent_page() -> ctypes.Array:
    """Return a page of user memory that is not there before its first access: the driver's way with a bounce buffer."""
    return (ctypes.c_char * PAGE).from_buffer(mmap.mmap(-1, PAGE))


def _read(device: vfio.Device) -> Call:
    buffer = _absent_page()
    where = ctypes.c_long(device.region(min(EXPECTED)).offset)
    return lambda: _libc.pread(device.fd, buffer, PAGE, where)


def _write(device: vfio.Device) -> Call:
    buffer = _absent_page()
    where = ctypes.c_long(device.region(max(EXPECTED)).offset)
    return lambda: _libc.pwrite(device.fd, buffer, PAGE, where)


def _map_and_touch(device: vfio.Device) -> Call:
    """mmap, and the fault that a system call takes which reads the mapping."""
    where = device.region(max(EXPECTED)).offset
    reader, writer = os.pipe()
    device._fds += [reader, writer]

    def call() -> int:
        address = vfio._libc.mmap(None, 2 * PMD, 3, 1, device.fd, where)
        if address == vfio._MAP_FAILED:
            return -1
        result = _libc.write(writer, ctypes.c_void_p(address + PMD), 1)
        code = ctypes.get_errno()
        _libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(2 * PMD))
        ctypes.set_errno(code)
        return int(result)

    return call


def _region_info(device: vfio.Device) -> Call:
    room = 256
    info = struct.pack(vfio.INFO_FORMAT, room, 0, max(EXPECTED), 0, 0, 0).ljust(room, b"\0")
    return Ioctl(device.fd, vfio.DEVICE_GET_REGION_INFO, info)


def _config_write(device: vfio.Device) -> Call:
    """The registers of BAR 2 to 5, which are emulated, physical, or both."""
    data = device.config(0x18, 16)
    where = ctypes.c_long(device.region(vfio.CONFIG_REGION).offset + 0x18)
    return lambda: _libc.pwrite(device.fd, data, len(data), where)


def _config_read(device: vfio.Device) -> Call:
    buffer = ctypes.create_string_buffer(64)
    where = ctypes.c_long(device.region(vfio.CONFIG_REGION).offset)
    return lambda: _libc.pread(device.fd, buffer, 64, where)


def _reset(device: vfio.Device) -> Call:
    return Ioctl(device.fd, vfio.DEVICE_RESET, b"\0" * 8)


# What is injected into, and what brings the function back to where the next injection starts.
TARGETS: dict = {
    # The same by whatever the device is opened afterwards.
    **({} if CDEV else {"bind": (_unbound, _bind)}),
    "open": (_opening, None),
    "close": (_closing, None),
    **{name: (lambda make=make: _opened(make), None) for name, make in {
        "first read": _read, "first write": _write, "mmap and touch": _map_and_touch, "region info": _region_info,
        "config read": _config_read, "config write": _config_write, "reset": _reset}.items()},
}
