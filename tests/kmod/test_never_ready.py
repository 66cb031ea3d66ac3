# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""A GPU that is never ready: bound while it was, not ready since. A wait ends after 30 s."""

from __future__ import annotations

import errno
import signal
import time
import unittest

import vfio_client as vfio
from contract import contract
from hostside import ADDRESS, COMMAND_MEMORY, DRIVER, EXPECTED, DeviceTest, in_child, in_thread, seconds, write_once

LIMIT = 30


class NeverReady(DeviceTest):
    """Errors instead of memory."""

    @contract("behaviour-ready-legacy")
    def test_read_write_and_fault_end_after_the_limit(self) -> None:
        """ETIME, ETIME and SIGBUS: side by side, to wait once only."""
        index = max(EXPECTED)
        with self.device.map(index, 0, 1 << 21) as mapping:
            start = time.monotonic()
            calls = [in_thread(lambda: self.device.read(index, 0, 8)),
                     in_thread(lambda: self.device.write(index, 0, b"x")),
                     in_thread(lambda: in_child(lambda: mapping.read(0, 8)))]
            for call in calls[:2]:
                self.assert_errno(errno.ETIME, call.join)
            self.assertEqual(calls[2].join(), -signal.SIGBUS)
            took = time.monotonic() - start
        self.assertGreater(took, LIMIT - 1)
        self.assertLess(took, LIMIT + 10)

    @contract("behaviour-ready-legacy")
    def test_decode_off_is_eio_at_once(self) -> None:
        """The readiness registers cannot be read then."""
        self.set_command(self.command() & ~COMMAND_MEMORY)
        took = seconds(lambda: self.assert_errno(errno.EIO, self.device.read, max(EXPECTED), 0, 8))
        self.assertLess(took, 5)

    @contract("behaviour-ready-lock")
    def test_region_info_and_config_work(self) -> None:
        """They need no memory."""
        for index, expected in EXPECTED.items():
            self.assertEqual(self.device.region(index).size, expected.reported)
            self.assertEqual(self.device.bar_size(index), expected.reported)


class Probe(unittest.TestCase):
    """Binding."""

    @contract("behaviour-ready-legacy", "mainline-10")
    def test_bind_fails_after_the_limit(self) -> None:
        """ETIME, and the function is left without a driver; the tests after this one bind again."""
        write_once(DRIVER + "/unbind", ADDRESS)
        start = time.monotonic()
        with self.assertRaises(OSError) as caught:
            write_once(DRIVER + "/bind", ADDRESS)
        self.assertEqual(caught.exception.errno, errno.ETIME)
        took = time.monotonic() - start
        self.assertGreater(took, LIMIT - 1)
        self.assertLess(took, LIMIT + 10)
        with self.assertRaises(OSError):
            vfio.Device(ADDRESS)


if __name__ == "__main__":
    unittest.main(verbosity=2)
