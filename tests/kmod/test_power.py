# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Low power: what VFIO lets a user do to the function, and what the memory does meanwhile."""

from __future__ import annotations

import os
import signal
import struct
import time
import unittest

import vfio_client as vfio
from contract import contract, ours_only
from hostside import DEVICE, EXPECTED, MIB, DeviceTest, capability, in_child

PMD = 2 * MIB
POWER_MANAGEMENT = 1  # PCI capability
D0, D3HOT = 0, 3


class LowPower(DeviceTest):
    """VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY: the function may be suspended until the user leaves it again."""

    def enter(self) -> None:
        """Enter low power."""
        self.device.feature(vfio.FEATURE_LOW_POWER_ENTRY, vfio.FEATURE_SET, struct.pack("II", 0, 0))

    def leave(self) -> None:
        """Leave low power."""
        self.device.feature(vfio.FEATURE_LOW_POWER_EXIT, vfio.FEATURE_SET)

    def suspended(self) -> bool:
        """Return whether runtime power management has the function suspended."""
        with open(DEVICE + "/power/runtime_status", encoding="ascii") as stream:
            return stream.read().strip() == "suspended"

    def wait_until_suspended(self) -> None:
        """Give it the moment it needs."""
        if not os.path.exists(DEVICE + "/power/runtime_status"):
            self.skipTest("this kernel is built without power management")
        limit = time.monotonic() + 20
        while not self.suspended() and time.monotonic() < limit:
            time.sleep(0.1)
        self.assertTrue(self.suspended(), "the function was not suspended within 20 s")

    @contract("behaviour-power")
    def test_touch_is_sigbus_and_works_again_after_leaving(self) -> None:
        """A mapping that was there all the time."""
        for index in EXPECTED:
            with self.device.map(index, 0, PMD) as mapping:
                mapping.write(0, b"awake")
                self.enter()
                self.assertEqual(in_child(lambda m=mapping: m.read(0, 5)), -signal.SIGBUS)
                self.leave()
                self.assertEqual(mapping.read(0, 5), b"awake")

    @contract("behaviour-power")
    def test_read_and_write_wake_the_function(self) -> None:
        """And give what is there."""
        for index in EXPECTED:
            self.device.write(index, 0, b"before")
            self.enter()
            self.wait_until_suspended()
            self.assertEqual(self.device.read(index, 0, 6), b"before")
            self.wait_until_suspended()
            self.assertEqual(self.device.write(index, 0, b"during"), 6)
            self.leave()
            self.assertFalse(self.suspended())
            self.assertEqual(self.device.read(index, 0, 6), b"during")

    @contract("behaviour-power")
    @ours_only("nothing says that a hole of the kernel's own driver lets the function sleep")
    def test_hole_wakes_nobody(self) -> None:
        """It exists in the driver only."""
        for index, expected in EXPECTED.items():
            if expected.actual == expected.reported:
                continue
            # Asked before, because every ioctl wakes the function.
            hole = self.device.region(index).offset + expected.actual
            self.enter()
            self.wait_until_suspended()
            self.assertEqual(os.pread(self.device.fd, 64, hole), b"\xff" * 64)
            self.assertEqual(os.pwrite(self.device.fd, b"x", hole), 1)
            self.assertTrue(self.suspended())
            self.leave()


class D3hot(DeviceTest):
    """The power state register of the PCI capability."""

    def set_state(self, state: int) -> None:
        """Write the state."""
        where = capability(self.device, POWER_MANAGEMENT) + 4
        value = struct.unpack("<H", self.device.config(where, 2))[0] & ~3
        self.device.write(vfio.CONFIG_REGION, where, struct.pack("<H", value | state))
        self.assertEqual(struct.unpack("<H", self.device.config(where, 2))[0] & 3, state)

    @contract("behaviour-power")
    def test_touch_in_d3hot_is_sigbus_and_d0_brings_all_back(self) -> None:
        """As for every BAR of vfio-pci-core."""
        for index in EXPECTED:
            with self.device.map(index, 0, PMD) as mapping:
                mapping.write(0, b"in D0")
                self.set_state(D3HOT)
                self.assertEqual(in_child(lambda m=mapping: m.read(0, 5)), -signal.SIGBUS)
                self.set_state(D0)
                self.assertEqual(mapping.read(0, 5), b"in D0")
                self.assertEqual(self.device.read(index, 0, 5), b"in D0")


if __name__ == "__main__":
    unittest.main(verbosity=2)
