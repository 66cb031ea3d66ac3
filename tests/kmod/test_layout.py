# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Regions and BARs of each product, with numbers and not with the formula: MiB, scaled to the lab's memory.

The real sizes, 96 to 279 GiB, go through the same code in files/kmod/tests/layout_test.c.
"""

from __future__ import annotations

import unittest
from pathlib import Path

import vfio_client as vfio
from contract import contract
from hostside import DEVICE, MEMORY, MEMORY_BASE, MIB, DeviceTest


class LayoutTest(DeviceTest):
    """What the tests of all products share."""

    def emulated(self, index: int, actual: int, reported: int, base: int) -> None:
        """Check an emulated region: sizes in MiB; its memory begins ``base`` MiB after the GPU's first byte."""
        region = self.device.region(index)
        self.assertEqual((region.size, region.areas), (reported * MIB, (vfio.Area(0, actual * MIB),)))
        self.assertEqual(self.device.bar_size(index), reported * MIB)
        self.device.read(index, 0, 1)
        where = f"phys=0x{MEMORY_BASE + base * MIB:016x}"
        self.assertIn(where, Path("/proc/vmallocinfo").read_text(encoding="ascii"))

    def physical(self, index: int) -> None:
        """Check that a region is the function's own BAR."""
        line = Path(DEVICE + "/resource").read_text(encoding="ascii").splitlines()[index]
        start, end = (int(word, 16) for word in line.split()[:2])
        region = self.device.region(index)
        self.assertEqual((region.size, region.areas), (end - start + 1 if end else 0, None))


class Gh200With120Gb(LayoutTest):
    """2560 MiB."""

    @contract("layout-gh200-120gb")
    def test_layout(self) -> None:
        """1536 and 1024."""
        self.assertEqual(MEMORY, 2560 * MIB)
        self.emulated(4, 1536, 2048, base=0)
        self.emulated(2, 1024, 1024, base=1536)


class Gh200With480Gb(LayoutTest):
    """2816 MiB."""

    @contract("layout-gh200-480gb")
    def test_layout(self) -> None:
        """1792 are rounded down to 1536; 1280 are left."""
        self.assertEqual(MEMORY, 2816 * MIB)
        self.emulated(4, 1536, 2048, base=0)
        self.emulated(2, 1280, 2048, base=1536)


class Gh200With144Gb(LayoutTest):
    """3328 MiB."""

    @contract("layout-gh200-144gb")
    def test_layout(self) -> None:
        """2304 are rounded down to 2048, and BAR4 is that of 2304: guests see it."""
        self.assertEqual(MEMORY, 3328 * MIB)
        self.emulated(4, 2048, 4096, base=0)
        self.emulated(2, 1280, 2048, base=2048)


class Gb200(LayoutTest):
    """1280 MiB, without the MIG hardware bug."""

    @contract("layout-gb200")
    def test_layout(self) -> None:
        """All of it in one region."""
        self.assertEqual(MEMORY, 1280 * MIB)
        self.emulated(4, 1280, 2048, base=0)
        self.physical(2)


class Gb300(LayoutTest):
    """1792 MiB, without the MIG hardware bug."""

    @contract("layout-gb300")
    def test_layout(self) -> None:
        """All of it in one region."""
        self.assertEqual(MEMORY, 1792 * MIB)
        self.emulated(4, 1792, 2048, base=0)
        self.physical(2)


class VeraCxl(LayoutTest):
    """1536 MiB; the id is in no table."""

    @contract("names-any-id")
    def test_layout(self) -> None:
        """As without the MIG hardware bug."""
        self.assertEqual(MEMORY, 1536 * MIB)
        self.emulated(4, 1536, 2048, base=0)
        self.physical(2)


class Bar2(LayoutTest):
    """layout=bar2, for any product."""

    @contract("layout-bar2")
    def test_layout(self) -> None:
        """The next power of two of each product's memory."""
        reported = {2560: 4096, 2816: 4096, 3328: 4096, 1280: 2048, 1536: 2048, 1792: 2048}
        self.emulated(2, MEMORY // MIB, reported[MEMORY // MIB], base=0)
        self.physical(4)


if __name__ == "__main__":
    unittest.main(verbosity=2)
