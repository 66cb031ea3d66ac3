# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""A GPU that tells readiness by its CXL Device DVSEC, and is not ready. Each class needs the GPU in its own state."""

from __future__ import annotations

import errno
import signal

import vfio_client as vfio
from contract import contract
from hostside import ADDRESS, DRIVER, EXPECTED, DeviceTest, in_child, seconds, write_once

# What a busy emulated host may add to a wait.
SLACK = 8


class CxlTest(DeviceTest):
    """Bound while the GPU was ready; opened, and so reset, when it no longer was."""

    def all_fail(self, code: int, least: float, most: float) -> None:
        """Check read, write, a touch and finally bind: the error, and the seconds until it."""
        index = max(EXPECTED)
        for access in (lambda: self.device.read(index, 0, 8), lambda: self.device.write(index, 0, b"x")):
            took = seconds(lambda call=access: self.assert_errno(code, call))
            self.assertGreaterEqual(took, least)
            self.assertLess(took, most + SLACK)
        with self.device.map(index, 0, 1 << 21) as mapping:
            self.assertEqual(in_child(lambda: mapping.read(0, 8)), -signal.SIGBUS)
        self.device.close()
        write_once(DRIVER + "/unbind", ADDRESS)
        took = seconds(lambda: self.assert_errno(code, write_once, DRIVER + "/bind", ADDRESS))
        self.assertGreaterEqual(took, least)
        self.assertLess(took, most + SLACK)


class NeverActive(CxlTest):
    """MEM_INFO_VALID, never MEM_ACTIVE; the function says that 4 s are enough (code 1)."""

    @contract("behaviour-ready-cxl")
    def test_time_out_is_what_the_dvsec_says(self) -> None:
        """ETIME after 4 s."""
        self.all_fail(errno.ETIME, 3.9, 5)


class NeverValid(CxlTest):
    """MEM_INFO_VALID never comes."""

    @contract("behaviour-ready-cxl")
    def test_one_second_for_the_information(self) -> None:
        """ETIME after 1 s, whatever the time-out code says."""
        self.all_fail(errno.ETIME, 0.9, 2)


class Silent(CxlTest):
    """The status reads as all ones."""

    @contract("behaviour-ready-cxl")
    def test_function_that_does_not_answer(self) -> None:
        """ENODEV at once."""
        self.all_fail(errno.ENODEV, 0, 1)


class Late(DeviceTest):
    """MEM_ACTIVE 6 s after a reset; the function says that 16 s are enough (code 2)."""

    @contract("behaviour-ready-cxl", "behaviour-open-resets")
    def test_first_read_waits_and_succeeds(self) -> None:
        """And the second does not wait."""
        index = max(EXPECTED)
        self.assertGreater(seconds(lambda: self.device.read(index, 0, 8)), 3)
        self.assertLess(seconds(lambda: self.device.read(index, 0, 8)), 2)
        with vfio.Mapping(self.device.fd, self.device.region(index).offset, 4096) as mapping:
            mapping.read(0, 8)
