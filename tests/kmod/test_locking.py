# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""User memory is not touched with memory_lock held: seen with user memory whose page fault does not end.

A userfaultfd makes the first access to the buffer of a read or write wait until the test resolves it. A driver that
copies under the lock then holds it for as long, and VFIO_DEVICE_RESET, which wants it, hangs.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
import time
import unittest

from contract import contract
from hostside import ARM64, EXPECTED, PAGE, Background, DeviceTest, in_thread

SYS_USERFAULTFD = 282 if ARM64 else 323
UFFDIO_API, UFFDIO_REGISTER, UFFDIO_ZEROPAGE = 0xC018AA3F, 0xC020AA00, 0xC020AA04
API_VERSION = 0xAA
REGISTER_MISSING = 1
# A reset takes a fraction of a second; the emulated host may be busy.
LIMIT = 15


class StuckPage:
    """One page of user memory whose first access waits."""

    def __init__(self) -> None:
        """Map the page and take over its faults."""
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.syscall(SYS_USERFAULTFD, os.O_CLOEXEC)
        if self.fd < 0 and ctypes.get_errno() == errno.ENOSYS:
            raise unittest.SkipTest("this kernel has no userfaultfd()")
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "userfaultfd")
        fcntl.ioctl(self.fd, UFFDIO_API, bytearray(struct.pack("QQQ", API_VERSION, 0, 0)))
        self.memory = mmap.mmap(-1, PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        request = struct.pack("QQQQ", self.address, PAGE, REGISTER_MISSING, 0)
        fcntl.ioctl(self.fd, UFFDIO_REGISTER, bytearray(request))

    def wait_for_fault(self) -> None:
        """Wait until somebody has accessed the page."""
        os.read(self.fd, 32)

    def resolve(self) -> None:
        """Let the access go on."""
        fcntl.ioctl(self.fd, UFFDIO_ZEROPAGE, bytearray(struct.pack("QQQq", self.address, PAGE, 0, 0)))


class UserMemory(DeviceTest):
    """A reset while a read or write is stuck in user memory."""

    def check(self, name: str, index: int) -> None:
        """Have one call stuck and reset the device meanwhile."""
        libc = ctypes.CDLL(None, use_errno=True)
        call = getattr(libc, name)
        call.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long]
        page = StuckPage()
        where = self.device.region(index).offset
        stuck = in_thread(lambda: call(self.device.fd, page.address, 64, where))
        page.wait_for_fault()
        reset: Background = in_thread(self.device.reset)
        limit = time.monotonic() + LIMIT
        while reset.running() and time.monotonic() < limit:
            time.sleep(0.05)
        hangs = reset.running()
        page.resolve()
        self.assertEqual(stuck.join(), 64)
        reset.join()
        os.close(page.fd)
        self.assertFalse(hangs, f"{name} of region {index} holds memory_lock while it touches user memory")

    @contract("mainline-6")
    def test_reset_during_a_read(self) -> None:
        """copy_to_user."""
        for index in EXPECTED:
            self.check("pread", index)

    @contract("mainline-6")
    def test_reset_during_a_write(self) -> None:
        """copy_from_user."""
        for index in EXPECTED:
            self.check("pwrite", index)


if __name__ == "__main__":
    unittest.main(verbosity=2)
