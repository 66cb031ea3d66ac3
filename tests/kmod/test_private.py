# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""MAP_PRIVATE. A driver that does not refuse it lets the first touch kill the kernel: so these tests run last.

Copy-on-write of memory without struct page is a BUG in mm. The touch is made for the record, in a child that may
hang for ever; the runner finds the BUG in the kernel log.
"""

from __future__ import annotations

import errno
import mmap
import os
import time
import unittest

from contract import contract
from hostside import EXPECTED, MIB, PAGE, DeviceTest

PMD = 2 * MIB
PATIENCE = 20


class Private(DeviceTest):
    """Refused, whatever protection and alignment."""

    def refused(self, length: int, alignment: int) -> None:
        """Ask for each kind of private mapping."""
        for index in EXPECTED:
            for protection in (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE):
                try:
                    mapping = self.device.map(index, 0, length, flags=mmap.MAP_PRIVATE, protection=protection,
                                              alignment=alignment)
                except OSError as error:
                    self.assertEqual(error.errno, errno.EINVAL)
                    continue
                child = os.fork()
                if not child:
                    mapping.read(0, 1)
                    os._exit(0)
                limit = time.monotonic() + PATIENCE
                while time.monotonic() < limit and not os.waitpid(child, os.WNOHANG)[0]:
                    time.sleep(0.1)
                self.fail("a private mapping is allowed")

    @contract("mainline-2", "behaviour-mmap")
    def test_pages(self) -> None:
        """One page."""
        self.refused(PAGE, 0)

    @contract("mainline-2", "behaviour-mmap")
    def test_huge_pages(self) -> None:
        """Aligned so that the fault would map 2 MiB."""
        self.refused(2 * PMD, PMD)


if __name__ == "__main__":
    unittest.main(verbosity=2)
