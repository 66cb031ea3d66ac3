# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Open and close, bind and unbind."""

from __future__ import annotations

import os
import signal
import time
import unittest

import vfio_client as vfio
from contract import contract
from hostside import ADDRESS, DEVICE, DRIVER, EXPECTED, in_thread, kernel_mappings, seconds, write_once


class Open(unittest.TestCase):
    """Opening the device."""

    @contract("behaviour-first-read")
    def test_many_opens(self) -> None:
        """Poison ranges and mappings are given back each time."""
        start = time.monotonic()
        for _ in range(10):
            with vfio.Device(ADDRESS) as device:
                device.read(min(EXPECTED), 0, 4)
        print(f"open, first read, close: {(time.monotonic() - start) / 10:.3f} s")
        self.assertEqual(kernel_mappings(), [])

    @contract("behaviour-mmap", "match-mappings")
    def test_a_mapping_keeps_the_device_open(self) -> None:
        """It works on after the last file descriptor is closed."""
        index = max(EXPECTED)
        device = vfio.Device(ADDRESS)
        with device.map(index, 0, 1 << 21) as mapping:
            mapping.write(0, b"still")
            device.close()
            self.assertEqual(mapping.read(0, 5), b"still")


class Binding(unittest.TestCase):
    """The driver's bind and unbind attributes."""

    @contract("match-unbind")
    def test_unbind_waits_for_the_holder(self) -> None:
        """And completes when the holder dies."""
        ready, tell = os.pipe()
        holder = os.fork()
        if not holder:
            device = vfio.Device(ADDRESS)
            with device.map(max(EXPECTED), 0, 1 << 21) as mapping:
                mapping.write(0, b"x")
                os.write(tell, b"x")
                time.sleep(60)
            os._exit(0)
        os.read(ready, 1)
        unbind = in_thread(lambda: write_once(DRIVER + "/unbind", ADDRESS))
        time.sleep(2)
        waits = unbind.running()
        os.kill(holder, signal.SIGKILL)
        took = seconds(lambda: (os.waitpid(holder, 0), unbind.join()))
        write_once(DRIVER + "/bind", ADDRESS)
        self.assertTrue(waits, "unbind did not wait for the open device")
        # vfio looks every 10 s whether the holder has gone, and is woken before that.
        self.assertLess(took, 9)

    @contract("match-cycles")
    def test_50_bind_cycles(self) -> None:
        """Each of them works; the runner looks into the kernel log."""
        for _ in range(50):
            write_once(DRIVER + "/unbind", ADDRESS)
            self.assertFalse(os.path.lexists(DEVICE + "/driver"))
            write_once(DRIVER + "/bind", ADDRESS)
        with vfio.Device(ADDRESS) as device:
            self.assertEqual(len(device.read(max(EXPECTED), 0, 64)), 64)


if __name__ == "__main__":
    unittest.main(verbosity=2)
