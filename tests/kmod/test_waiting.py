# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""A GPU that becomes ready only GPU_READY_AFTER seconds after each reset, and so after each open."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import time
import unittest

from contract import contract
from hostside import COMMAND_MEMORY, DEVICE, EXPECTED, READY_AFTER, DeviceTest, in_thread, seconds, write_once

# What needs no waiting is done well before; the emulated host is slow.
AT_ONCE = READY_AFTER / 3


class Waiting(DeviceTest):
    """The first access waits; nobody else does."""

    def first_read(self) -> bytes:
        """Read memory."""
        return self.device.read(max(EXPECTED), 0, 8)

    @contract("behaviour-ready-legacy", "behaviour-open-resets")
    def test_first_read_waits_and_succeeds(self) -> None:
        """And the second does not wait."""
        self.assertGreater(seconds(self.first_read), AT_ONCE)
        self.assertLess(seconds(self.first_read), AT_ONCE)

    @contract("behaviour-ready-legacy")
    def test_reset_makes_it_wait_again(self) -> None:
        """VFIO_DEVICE_RESET counts as the reset at open does."""
        self.first_read()
        self.device.reset()
        self.assertGreater(seconds(self.first_read), AT_ONCE)

    @contract("behaviour-ready-legacy")
    def test_reset_from_sysfs_takes_mappings_away(self) -> None:
        """It does not come through VFIO; the next touch waits all the same."""
        with self.device.map(max(EXPECTED), 0, 1 << 21) as mapping:
            mapping.read(0, 8)
            self.assertLess(seconds(lambda: mapping.read(0, 8)), AT_ONCE)
            write_once(DEVICE + "/reset", "1")
            took = seconds(lambda: mapping.read(0, 8))
            self.assertGreater(took, AT_ONCE, f"a touch after a reset from sysfs waits {took:.1f} s only")

    @contract("mainline-5")
    def test_hole_never_waits(self) -> None:
        """Neither read nor write."""
        for index, expected in EXPECTED.items():
            if expected.actual == expected.reported:
                continue
            took = seconds(lambda i=index, o=expected.actual: self.device.read(i, o, 64))
            self.assertLess(took, AT_ONCE, f"a read of the hole waits {took:.1f} s for the memory")
            took = seconds(lambda i=index, o=expected.actual: self.device.write(i, o, b"x"))
            self.assertLess(took, AT_ONCE, f"a write to the hole waits {took:.1f} s for the memory")

    @contract("mainline-5", "behaviour-ready-lock")
    def test_others_go_on_while_a_reader_waits(self) -> None:
        """PCI_COMMAND, region info, the hole: mainline has them wait for the lock."""
        reader = in_thread(self.first_read)
        time.sleep(0.5)
        command = self.command()
        took = seconds(lambda: self.set_command(command & ~COMMAND_MEMORY))
        self.assertLess(took, AT_ONCE, f"a write of PCI_COMMAND hangs for {took:.1f} s")
        self.set_command(command | COMMAND_MEMORY)
        self.assertLess(seconds(lambda: self.device.region(max(EXPECTED))), AT_ONCE)
        # A look at the GPU in the moment without decoding would end the read with EIO, and rightly.
        try:
            reader.join()
        except OSError as error:
            self.assertEqual(error.errno, errno.EIO)

    @contract("mainline-5", "behaviour-ready-lock")
    def test_reset_goes_on_while_a_reader_waits(self) -> None:
        """And the reader then waits for the later of the two resets."""
        reader = in_thread(self.first_read)
        time.sleep(0.5)
        took = seconds(self.device.reset)
        self.assertLess(took, AT_ONCE, f"VFIO_DEVICE_RESET hangs for {took:.1f} s")
        self.assertTrue(reader.running())
        reader.join()

    @contract("behaviour-ready-lock")
    def test_a_fault_waits_and_the_process_goes_on(self) -> None:
        """mmap_lock is free meanwhile: another thread can map and unmap."""
        with self.device.map(max(EXPECTED), 0, 1 << 21) as mapping:
            toucher = in_thread(lambda: mapping.read(0, 8))
            time.sleep(0.5)
            took = seconds(lambda: mmap.mmap(-1, 1 << 20).close())
            self.assertLess(took, AT_ONCE, f"mmap of another thread hangs for {took:.1f} s")
            self.assertTrue(toucher.running())
            toucher.join()
            self.assertGreater(toucher.ended - toucher.started, AT_ONCE)

    @contract("behaviour-ready-lock")
    def test_a_mapping_can_go_while_its_fault_waits(self) -> None:
        """The wait holds the file, not the mapping: SIGSEGV for the one who touched it, nothing worse."""
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            mapping = self.device.map(max(EXPECTED), 0, 1 << 21)
            in_thread(lambda: mapping.read(0, 8))
            time.sleep(0.5)
            mapping.close()
            time.sleep(2 * READY_AFTER)
            os._exit(0)
        self.assertEqual(os.WTERMSIG(os.waitpid(pid, 0)[1]), signal.SIGSEGV)

    @contract("match-kill", "behaviour-ready-legacy")
    def test_kill_ends_a_wait(self) -> None:
        """For read and for a fault."""
        with self.device.map(max(EXPECTED), 0, 1 << 21) as mapping:
            for access in (self.first_read, lambda: mapping.read(0, 8)):
                self.device.reset()
                pid = os.fork()
                if not pid:
                    access()
                    os._exit(0)
                time.sleep(0.5)
                os.kill(pid, signal.SIGKILL)
                self.assertLess(seconds(lambda p=pid: os.waitpid(p, 0)), AT_ONCE)

    @contract("behaviour-ready-lock")
    def test_several_readers_wait_together(self) -> None:
        """Not one after another."""
        readers = [in_thread(self.first_read) for _ in range(4)]
        for reader in readers:
            reader.join()
        self.assertLess(max(reader.ended - reader.started for reader in readers), READY_AFTER + 4)


if __name__ == "__main__":
    unittest.main(verbosity=2)
