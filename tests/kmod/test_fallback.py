# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""A GPU for which firmware names no memory, or one of size 0: plain vfio-pci, and a warning that says so."""

from __future__ import annotations

import errno
import subprocess
import unittest

import vfio_client as vfio
from contract import contract
from hostside import ADDRESS, DeviceTest


class Fallback(DeviceTest):
    """Nothing is emulated."""

    @contract("behaviour-fallback")
    def test_no_region_is_emulated(self) -> None:
        """So a verifier can tell: no sparse area anywhere, no size for region 4."""
        self.assertEqual(self.device.region(4).size, 0)
        for index in range(6):
            self.assertIsNone(self.device.region(index).areas)
        self.assertEqual(self.device.config(0x20, 8), bytes(8))

    @contract("behaviour-fallback")
    def test_the_physical_function_works(self) -> None:
        """BAR0 by read and by mmap, reset."""
        with self.device.map(0, 0, 4096) as mapping:
            self.assertEqual(mapping.read(0, 4), self.device.read(0, 0, 4))
        self.device.reset()

    @contract("behaviour-fallback")
    def test_region_4_cannot_be_used(self) -> None:
        """Errors as from vfio-pci."""
        self.assert_errno(errno.EINVAL, vfio.Mapping, self.device.fd, 4 << 40, 4096)

    @contract("behaviour-fallback", "mainline-7")
    def test_the_kernel_log_says_so(self) -> None:
        """One warning at bind."""
        log = subprocess.run(["dmesg", "--level", "warn"], check=True, stdout=subprocess.PIPE).stdout.decode()
        lines = [line for line in log.splitlines() if "acting as plain vfio-pci" in line and ADDRESS in line]
        self.assertTrue(lines)


if __name__ == "__main__":
    unittest.main(verbosity=2)
