# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""A size that is no multiple of a page: mmap gives whole pages, read and write all of it."""

from __future__ import annotations

import errno
import random
import subprocess
import unittest

from contract import contract, ours_only
from hostside import ADDRESS, EXPECTED, PAGE, DeviceTest


class OddSize(DeviceTest):
    """The last bytes are no whole page."""

    def setUp(self) -> None:
        """Open; there has to be such a region, or nothing would be tested."""
        super().setUp()
        self.odd = {index: expected for index, expected in EXPECTED.items() if expected.actual % PAGE}
        self.assertTrue(self.odd, "this host has no odd size")

    @contract("mainline-8")
    def test_sparse_area_maps_whole(self) -> None:
        """What region info offers can be had."""
        for index, expected in self.odd.items():
            area = self.device.region(index).areas[0]
            with self.device.map(index, area.offset, area.size) as mapping:
                mapping.write(area.size - 4, b"last")
            self.assertEqual(area.size, expected.mappable)

    @contract("mainline-8", "behaviour-mmap")
    def test_the_rest_does_not_map(self) -> None:
        """It would show what is not the GPU's."""
        for index, expected in self.odd.items():
            self.assert_errno(errno.EINVAL, self.device.map, index, 0, expected.mappable + PAGE)
            self.assert_errno(errno.EINVAL, self.device.map, index, expected.mappable, PAGE)

    @contract("mainline-8", "behaviour-hole")
    def test_read_and_write_reach_the_rest(self) -> None:
        """Up to the last byte, and not further."""
        for index, expected in self.odd.items():
            data = random.randbytes(expected.actual - expected.mappable + 100)
            start = expected.mappable - 50
            self.assertEqual(self.device.write(index, start, data), len(data))
            stored = expected.actual - start
            self.assertEqual(self.device.read(index, start, len(data)),
                             data[:stored] + b"\xff" * (len(data) - stored))

    @contract("mainline-8")
    @ours_only("a demand on this driver's own messages")
    def test_the_kernel_log_says_so(self) -> None:
        """At bind."""
        log = subprocess.run(["dmesg"], check=True, stdout=subprocess.PIPE).stdout.decode()
        self.assertTrue([line for line in log.splitlines() if ADDRESS in line and "are no whole page" in line])


if __name__ == "__main__":
    unittest.main(verbosity=2)
