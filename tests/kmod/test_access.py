# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""read(2) and write(2) of the emulated regions. The GPU is ready."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import struct
import threading
import unittest

from contract import contract
from hostside import EXPECTED, MIB, DeviceTest, kernel_mappings, seconds

CHUNK = 4096
PMD = 2 * MIB
HOLES = {index: expected for index, expected in EXPECTED.items() if expected.actual < expected.reported}


class ReadWrite(DeviceTest):
    """pread and pwrite, for every emulated region."""

    @contract("behaviour-clip")
    def test_round_trip_of_all_widths(self) -> None:
        """One byte to 2 MiB + 3, aligned or not: the whole count, the same bytes."""
        for index, expected in EXPECTED.items():
            for count in (1, 2, 3, 4, 8, 100, CHUNK, 65536, 65537, PMD + 3):
                for offset in (0, 1, expected.actual - count):
                    data = random.randbytes(count)
                    self.assertEqual(self.device.write(index, offset, data), count)
                    self.assertEqual(self.device.read(index, offset, count), data,
                                     f"region {index}: {count} bytes at {offset:#x} are not what was written")

    @contract("behaviour-beyond", "review-4")
    def test_at_or_after_reported_is_einval(self) -> None:
        """Beyond the region."""
        for index, expected in EXPECTED.items():
            for offset in (expected.reported, expected.reported + CHUNK):
                self.assert_errno(errno.EINVAL, self.device.read, index, offset, 4)
                self.assert_errno(errno.EINVAL, self.device.write, index, offset, b"abcd")

    @contract("behaviour-clip", "review-4")
    def test_across_reported_is_clipped(self) -> None:
        """The part within the region is done and counted."""
        for index, expected in EXPECTED.items():
            start = expected.reported - 100
            answer = self.device.read(index, start, CHUNK)
            self.assertEqual(len(answer), 100)
            self.assertEqual(self.device.write(index, start, answer + b"x" * 100), 100)

    @contract("behaviour-hole", "review-4", "review-5")
    def test_hole_reads_ff_and_counts(self) -> None:
        """From its first byte to its last."""
        for index, expected in HOLES.items():
            for offset in {expected.actual, expected.actual + 1, max(expected.actual, expected.reported - 70000)}:
                count = min(70000, expected.reported - offset)
                self.assert_reads(index, offset, b"\xff" * count)

    @contract("behaviour-hole", "review-5", "mainline-4")
    def test_read_across_actual_is_data_then_ff(self) -> None:
        """All in one call."""
        for index, expected in HOLES.items():
            data = random.randbytes(2048)
            self.device.write(index, expected.actual - 2048, data)
            self.assert_reads(index, expected.actual - 2048, data + b"\xff" * 2048)

    @contract("behaviour-hole", "review-9")
    def test_dropped_write_counts_and_changes_nothing(self) -> None:
        """The memory below it is as before."""
        for index, expected in HOLES.items():
            below = random.randbytes(CHUNK)
            self.device.write(index, expected.actual - CHUNK, below)
            count = min(70000, expected.reported - expected.actual)
            self.assertEqual(self.device.write(index, expected.actual, b"\0" * count), count)
            self.assert_reads(index, expected.actual - CHUNK, below)
            self.assert_reads(index, expected.actual, b"\xff" * count)

    @contract("behaviour-hole", "mainline-4")
    def test_write_across_actual_stores_the_first_part(self) -> None:
        """All bytes count; those with memory behind them are stored."""
        for index, expected in HOLES.items():
            data = random.randbytes(CHUNK)
            done = self.device.write(index, expected.actual - 1000, data)
            self.assertEqual(done, CHUNK, f"region {index}: a write of {CHUNK} returns {done}")
            self.assert_reads(index, expected.actual - 1000, data[:1000])
            self.assert_reads(index, expected.actual, b"\xff" * (CHUNK - 1000))

    @contract("behaviour-clip")
    def test_nothing_is_nothing(self) -> None:
        """A count of 0."""
        for index, expected in EXPECTED.items():
            self.assertEqual(self.device.read(index, expected.actual - 1, 0), b"")


class Position(DeviceTest):
    """The position that a call leaves behind."""

    @contract("behaviour-position", "review-10", "mainline-4")
    def test_position_advances_within_preadv_and_pwritev(self) -> None:
        """Each of several buffers gets what belongs there, also across the actual size."""
        for index, expected in EXPECTED.items():
            for start in (0, expected.actual - 300):
                if expected.actual == expected.reported and start:
                    continue
                data = random.randbytes(600)
                where = self.device.region(index).offset + start
                self.assertEqual(os.pwritev(self.device.fd, [data[:200], data[200:450], data[450:]], where), 600)
                buffers = [bytearray(100), bytearray(350), bytearray(150)]
                self.assertEqual(os.preadv(self.device.fd, buffers, where), 600)
                stored = max(0, min(600, expected.actual - start))
                reads = data[:stored] + b"\xff" * (600 - stored)
                self.assertEqual(b"".join(bytes(buffer) for buffer in buffers), reads,
                                 f"region {index}: preadv of three buffers gives wrong data")

    @contract("behaviour-position", "review-10")
    def test_successive_reads_advance(self) -> None:
        """By readv: read(2) on a VFIO device has no position to begin with, lseek is ESPIPE."""
        self.assert_errno(errno.ESPIPE, os.lseek, self.device.fd, 0, os.SEEK_SET)
        for index in EXPECTED:
            data = random.randbytes(300)
            where = self.device.region(index).offset
            self.device.write(index, 0, data)
            buffers = [bytearray(1) for _ in range(300)]
            self.assertEqual(os.preadv(self.device.fd, buffers, where), 300)
            self.assertEqual(b"".join(bytes(buffer) for buffer in buffers), data,
                             f"region {index}: reads of a byte each do not advance")

    @contract("behaviour-position", "review-10")
    def test_bad_buffer_is_efault(self) -> None:
        """An earlier buffer of the same call keeps its bytes."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.pread.argtypes = libc.pwrite.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long]
        libc.preadv.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_long]
        for index, expected in EXPECTED.items():
            where = self.device.region(index).offset
            holes = {expected.actual} if index in HOLES else set()
            for offset in {0} | holes:
                self.assertEqual(libc.pread(self.device.fd, 16, 64, where + offset), -1)
                self.assertEqual(ctypes.get_errno(), errno.EFAULT)
            self.assertEqual(libc.pwrite(self.device.fd, 16, 64, where), -1)
            self.assertEqual(ctypes.get_errno(), errno.EFAULT)
            self.device.write(index, 0, b"first buffer")
            good = ctypes.create_string_buffer(12)
            vector = struct.pack("QQQQ", ctypes.addressof(good), 12, 16, 12)
            self.assertEqual(libc.preadv(self.device.fd, vector, 2, where), 12)
            self.assertEqual(good.raw, b"first buffer")


class Mapping(DeviceTest):
    """The kernel's own mapping of the memory."""

    @contract("behaviour-first-read", "review-7")
    def test_concurrent_first_accesses_make_one_mapping(self) -> None:
        """Reads and writes share it, and none is left after close."""
        accesses = [lambda i=index: self.device.read(i, 0, 4) for index in EXPECTED]
        accesses += [lambda i=index: self.device.write(i, CHUNK, b"abcd") for index in EXPECTED]
        threads = [threading.Thread(target=access) for _ in range(4) for access in accesses]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(kernel_mappings()), len(EXPECTED))
        self.device.close()
        self.assertEqual(kernel_mappings(), [])


class Throughput(DeviceTest):
    """Figures, with limits wide enough for a busy emulated host; tests/bench/kmod measures properly."""

    @contract("mainline-3")
    def test_hole_is_no_dearer_than_memory(self) -> None:
        """One copy for many bytes, in both; mainline needs 28 times as long."""
        for index, expected in HOLES.items():
            count = min(64 * MIB, expected.reported - expected.actual)
            if count < 16 * MIB:
                continue
            memory, hole = [], []
            for _ in range(5):
                memory.append(seconds(lambda i=index, n=count: self.device.read(i, 0, n)))
                hole.append(seconds(lambda i=index, n=count, o=expected.actual: self.device.read(i, o, n)))
            print(f"region {index}: {count // MIB} MiB of memory {min(memory):.3f} s, of hole {min(hole):.3f} s")
            self.assertLess(min(hole), 5 * min(memory), f"{min(hole) / min(memory):.0f} times as dear")

    @contract("mainline-9")
    def test_regions_read_and_write_alike(self) -> None:
        """Mainline: 80 to 100 MB/s for resmem where usemem has thousands."""
        rates = {}
        for index in EXPECTED:
            for size in (CHUNK, PMD):
                repeat = 32 * MIB // size if size > CHUNK else 2000
                where, buffers = self.device.region(index).offset, [bytearray(size)]
                os.pwritev(self.device.fd, buffers, where)
                write = seconds(lambda b=buffers, w=where, n=repeat: [os.pwritev(self.device.fd, b, w)
                                                                      for _ in range(n)])
                read = seconds(lambda b=buffers, w=where, n=repeat: [os.preadv(self.device.fd, b, w)
                                                                     for _ in range(n)])
                rates[index, size] = size * repeat / read / 1e6
                print(f"region {index}, {size:7} bytes: read {rates[index, size]:6.0f} MB/s,"
                      f" write {size * repeat / write / 1e6:6.0f} MB/s")
        for size in (CHUNK, PMD):
            fastest = max(rates[index, size] for index in EXPECTED)
            slowest = min(rates[index, size] for index in EXPECTED)
            self.assertGreater(slowest, fastest / 10, f"{size} bytes at a time: {slowest:.0f} and {fastest:.0f} MB/s")


if __name__ == "__main__":
    unittest.main(verbosity=2)
