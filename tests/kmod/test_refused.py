# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Firmware data that no driver should believe: the function is left without a driver, with a message that says why."""

from __future__ import annotations

import errno
import os
import subprocess
import unittest

from contract import contract
from hostside import ADDRESS, DEVICE, DRIVER, MODULE, write_once


class RefusedTest(unittest.TestCase):
    """Binding fails."""

    def refused(self, reason: str) -> None:
        """Check that binding is EINVAL and that the kernel log gives the reason."""
        write_once(DEVICE + "/driver_override", MODULE)
        with self.assertRaises(OSError) as caught:
            write_once(DRIVER + "/bind", ADDRESS)
        self.assertEqual(caught.exception.errno, errno.EINVAL)
        self.assertFalse(os.path.exists(DEVICE + "/driver"))
        log = subprocess.run(["dmesg", "--level", "err"], check=True, stdout=subprocess.PIPE).stdout.decode()
        lines = [line for line in log.splitlines() if ADDRESS in line and "refusing memory" in line]
        self.assertTrue(lines)
        self.assertIn(reason, lines[-1])
        print(lines[-1].strip())


class SystemRam(RefusedTest):
    """memremap() of RAM would succeed and hand the host's memory to a guest."""

    @contract("refuse-ram")
    def test_range_in_ram(self) -> None:
        """Says what it overlaps."""
        self.refused("overlaps System RAM")


class Wrapping(RefusedTest):
    """Base and size whose sum does not fit."""

    @contract("refuse-wrap")
    def test_range_that_wraps(self) -> None:
        """Names the range."""
        self.refused("no regions can be made of it")


class Unreachable(RefusedTest):
    """A page table entry drops the address bits that it has no place for, and would show other memory."""

    @contract("refuse-unreachable")
    def test_range_after_the_last_address(self) -> None:
        """Names that address."""
        self.refused("after the last address of this processor")


class BaseInPage(RefusedTest):
    """A base that is not at the beginning of a page."""

    @contract("refuse-page")
    def test_base_in_page(self) -> None:
        """Names the range."""
        self.refused("no regions can be made of it")


if __name__ == "__main__":
    unittest.main(verbosity=2)
