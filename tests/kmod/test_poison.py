# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Memory failures of GPU memory, as the kernel handles them when firmware reports one.

Injected through hard_offline_page, which runs the kernel's memory_failure() for a physical address.
"""

from __future__ import annotations

import errno
import os
import signal
import unittest

import vfio_client as vfio
from contract import contract
from hostside import ADDRESS, EXPECTED, KERNEL, MIB, PAGE, DeviceTest, in_child, write_once

INJECT = "/sys/devices/system/memory/hard_offline_page"
PMD = 2 * MIB


def fail_at(address: int) -> None:
    """Report a memory failure at a physical address. Raises OSError when nobody answers for the memory."""
    write_once(INJECT, hex(address))


def in_user_of(mapping: vfio.Mapping, offset: int, physical: int) -> tuple:
    """Have memory fail, reported in a process that has the mapping and has touched it.

    Returns how that process ended, and whether it had got as far as the failure.
    """
    reached, tell = os.pipe()

    def user() -> None:
        mapping.read(offset, 8)
        os.write(tell, b"x")
        fail_at(physical)
        mapping.read(offset, 8)

    status = in_child(user)
    os.set_blocking(reached, False)
    try:
        return status, os.read(reached, 1) == b"x"
    except BlockingIOError:
        return status, False
    finally:
        os.close(reached)
        os.close(tell)


class Poison(DeviceTest):
    """Kernels that have an interface for memory without struct page."""

    def setUp(self) -> None:
        """Skip where the kernel cannot do it."""
        if KERNEL < (6, 19):
            self.skipTest("this kernel has no register_pfn_address_space()")
        if not os.path.exists(INJECT):
            self.skipTest("this kernel is built without memory failure handling")
        super().setUp()

    @contract("behaviour-poison")
    def test_failure_under_a_mapping_is_sigbus(self) -> None:
        """First page, last page, and one that was mapped with its neighbours."""
        for index, expected in EXPECTED.items():
            for offset, start in ((0, 0), (expected.mappable - PAGE, expected.mappable - PMD), (2 * PMD + PAGE, PMD)):
                with self.device.map(index, start, PMD if start != PMD else 3 * PMD, alignment=PMD) as mapping:
                    ended = in_user_of(mapping, offset - start, expected.base + offset)
                    self.assertEqual(ended, (-signal.SIGBUS, True),
                                     f"no SIGBUS for a failure at {offset:#x} of region {index}: status {ended[0]}")

    @contract("behaviour-poison")
    def test_failure_of_other_memory_harms_nobody(self) -> None:
        """A process that maps other pages of the region goes on: before the failing one, and after it."""
        for index, expected in EXPECTED.items():
            self.device.write(index, 0, b"alive")
            for failing in (0, expected.mappable - PAGE):
                with self.device.map(index, PMD, PMD) as mapping:
                    ended = in_user_of(mapping, 0, expected.base + failing)
                    self.assertEqual(ended, (0, True), f"a user of other pages of region {index} dies of a failure "
                                     f"at {failing:#x}: status {ended[0]}")
            self.assertEqual(self.device.read(index, 0, 5), b"alive")

    @contract("behaviour-poison")
    def test_ranges_are_registered_while_open_only(self) -> None:
        """After close nobody answers for the memory, which is EBUSY; after the next open somebody does."""
        for expected in EXPECTED.values():
            fail_at(expected.base)
        self.device.close()
        for expected in EXPECTED.values():
            self.assert_errno(errno.EBUSY, fail_at, expected.base)
        self.device = vfio.Device(ADDRESS)
        self.addCleanup(self.device.close)
        for expected in EXPECTED.values():
            fail_at(expected.base)


if __name__ == "__main__":
    unittest.main(verbosity=2)
