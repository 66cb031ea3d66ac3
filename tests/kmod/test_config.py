# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Config space of a GPU with emulated regions, through real VFIO reads and writes. The GPU is ready."""

from __future__ import annotations

import struct
import unittest

import vfio_client as vfio
from contract import contract
from hostside import ADDRESS, EXPECTED, DeviceTest

BARS = range(0x10, 0x28)


def position(index: int) -> int:
    """Return where the BAR registers of a region are."""
    return vfio.BAR0_CONFIG_OFFSET + 4 * index


class Config(DeviceTest):
    """Reads and writes of any width that touch BAR0 to BAR5."""

    def quad(self, offset: int) -> int:
        """Return a 64-bit register."""
        return struct.unpack("<Q", self.device.config(offset, 8))[0]

    def put(self, offset: int, data: bytes) -> int:
        """Write config space by one write."""
        return self.device.write(vfio.CONFIG_REGION, offset, data)

    @contract("behaviour-bar-value")
    def test_emulated_bars_are_64_bit_prefetchable_and_zero_at_open(self) -> None:
        """Stored = 0 at open."""
        for index in EXPECTED:
            self.assertEqual(self.quad(position(index)), 0xC)

    @contract("behaviour-bar-value")
    def test_sizing_gives_the_reported_size(self) -> None:
        """What a guest's firmware does."""
        for index, expected in EXPECTED.items():
            self.assertEqual(self.device.bar_size(index), expected.reported)
            mask = 0xFFFFFFFFFFFFFFFF & ~(expected.reported - 1) | 0xC
            for half in (0, 4):
                self.put(position(index) + half, b"\xff" * 4)
            self.assertEqual(self.quad(position(index)), mask)

    @contract("behaviour-config-read", "mainline-1")
    def test_every_read_shows_what_dword_reads_show(self) -> None:
        """Mainline overlays one BAR of a read that touches several."""
        for number, index in enumerate(EXPECTED):
            self.put(position(index), struct.pack("<Q", (0x11 * (number + 1)) << 40))
        header = b"".join(self.device.config(offset, 4) for offset in range(0, 64, 4))
        for index in EXPECTED:
            self.assertNotEqual(header[position(index):position(index) + 8], bytes(8))
        for start in range(0x2C):
            for count in range(1, 0x40 - start + 1):
                self.assertEqual(self.device.config(start, count), header[start:start + count],
                                 f"{count} bytes at {start:#x} lack a BAR that dword reads show")

    @contract("behaviour-config-write", "mainline-1")
    def test_write_across_all_bars_loses_nothing(self) -> None:
        """Mainline returns 8 of 16 bytes, or 16 and drops a BAR."""
        for start in (0x10, 0x14, 0x18, 0x1C, 0x20):
            for count in (4, 8, 12, 16, 24):
                if start + count > BARS.stop:
                    continue
                self.put(BARS.start, bytes(len(BARS)))
                done = self.put(start, b"\xff" * count)
                self.assertEqual(done, count, f"a write of {count} bytes at {start:#x} returns {done}")
                together = self.device.config(BARS.start, len(BARS))
                self.put(BARS.start, bytes(len(BARS)))
                for offset in range(start, start + count, 4):
                    self.put(offset, b"\xff" * 4)
                self.assertEqual(together, self.device.config(BARS.start, len(BARS)), (start, count))

    @contract("behaviour-config-write", "mainline-1")
    def test_16_bytes_at_0x18_and_at_0x10(self) -> None:
        """Mainline returns 8 for both on GH200, and loses BAR0/1 of the latter."""
        for start in (0x18, 0x10):
            done = self.put(start, b"\xff" * 16)
            self.assertEqual(done, 16, f"a write of 16 bytes at {start:#x} returns {done}")
            for index, expected in EXPECTED.items():
                if start <= position(index) < start + 16:
                    mask = 0xFFFFFFFFFFFFFFFF & ~(expected.reported - 1)
                    self.assertEqual(self.quad(position(index)), mask | 0xC)
        self.assertNotEqual(self.device.config(0x10, 4), bytes(4))

    @contract("behaviour-config-write", "behaviour-config-read")
    def test_bytes_of_a_register_are_kept_apart(self) -> None:
        """One and two byte writes."""
        for index, expected in EXPECTED.items():
            self.put(position(index) + 5, b"\x12")
            self.put(position(index) + 6, b"\x34\x56")
            stored = 0x5634120000000000 & ~(expected.reported - 1)
            self.assertEqual(self.quad(position(index)), stored | 0xC)
            self.assertEqual(self.device.config(position(index) + 5, 3), struct.pack("<Q", stored)[5:])

    @contract("behaviour-config-write", "mainline-1")
    def test_write_that_begins_before_the_bars(self) -> None:
        """The core's part and ours in one write."""
        before = self.device.config(0x0C, 4)
        index = min(EXPECTED)
        data = before + b"\0" * (position(index) - 0x10) + struct.pack("<Q", 0x77 << 48)
        done = self.put(0x0C, data)
        self.assertEqual(done, len(data), f"a write of {len(data)} bytes at 0xc returns {done}")
        self.assertEqual(self.quad(position(index)), 0x77 << 48 | 0xC)

    @contract("behaviour-bar-value")
    def test_reset_forgets(self) -> None:
        """VFIO_DEVICE_RESET and a new open."""
        for index in EXPECTED:
            self.put(position(index), b"\xff" * 8)
        self.device.reset()
        for index in EXPECTED:
            self.assertEqual(self.quad(position(index)), 0xC)
            self.put(position(index), b"\xff" * 8)
        self.device.close()
        self.device = vfio.Device(ADDRESS)
        self.addCleanup(self.device.close)
        for index in EXPECTED:
            self.assertEqual(self.quad(position(index)), 0xC)

    @contract("behaviour-config-read")
    def test_the_rest_of_config_space(self) -> None:
        """Ids, and a read of everything at once."""
        self.assertEqual(self.device.config(0, 2), b"\xde\x10")
        whole = self.device.config(0, 4096)
        self.assertEqual(len(whole), 4096)
        self.assertEqual(whole[:64], b"".join(self.device.config(offset, 4) for offset in range(0, 64, 4)),
                         "a read of everything lacks a BAR that dword reads show")


if __name__ == "__main__":
    unittest.main(verbosity=2)
