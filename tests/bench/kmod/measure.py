#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Times two drivers against each other on the emulated host. Runs there; prints JSON.

usage: measure.py OUR_ADDRESS THEIR_ADDRESS PAIRS

Both GPUs are open at the same time and each figure is taken in pairs, ours and theirs within the same moment and in
changing order: whatever else the machine does, it does to both. Times are seconds for one operation.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Callable

import vfio_client as vfio

MIB = 1 << 20
GIB = 1 << 30
PMD = 2 * MIB
KIB4 = 4096
USEMEM, RESMEM = 4, 2
# A sample repeats its operation for about so many seconds: short, so that what disturbs one seldom disturbs its pair.
SAMPLE = 0.005
MORE = 5  # times as many pairs of what is that short
WARM_UPS = 2

_loops = ctypes.CDLL(str(Path(__file__).resolve().parent / "loops.so"))
_loops.transfers.restype = _loops.touch.restype = _loops.fresh_read.restype = ctypes.c_double
_loops.transfers.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long,
                             ctypes.c_size_t, ctypes.c_long]
_loops.fresh_read.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_long]
_loops.touch.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
_buffer = ctypes.create_string_buffer(64 * MIB)
ctypes.memset(_buffer, 0x5A, len(_buffer))


class Gpu:
    """An open device, its regions asked once."""

    def __init__(self, address: str) -> None:
        """Open, and touch all memory: the first touch after boot is QEMU's own memory coming in."""
        self.address = address
        self.device = vfio.Device(address)
        self.regions = {index: self.device.region(index) for index in (USEMEM, RESMEM)}
        for index, region in self.regions.items():
            for offset in range(0, region.areas[0].size, PMD):
                self.device.write(index, offset, bytes(PMD))

    def transfers(self, index: int, offset: int, size: int, write: bool, count: int) -> float:
        """Return the seconds that one of ``count`` transfers takes."""
        where = self.regions[index].offset + offset
        took = _loops.transfers(self.device.fd, write, _buffer, size, where, max(size, PMD), count)
        if took < 0:
            raise RuntimeError(f"{self.address}: a transfer of {size} bytes at {offset:#x} of region {index} is short")
        return took / count

    def fresh_read(self, size: int) -> float:
        """Return the seconds for reading usemem into memory that nobody has touched before."""
        took = _loops.fresh_read(self.device.fd, size, self.regions[USEMEM].offset)
        if took < 0:
            raise RuntimeError(f"{self.address}: a read of {size} bytes into fresh memory is short")
        return took

    def first_touch(self) -> tuple:
        """Return seconds and faults for the first touch of an aligned GiB, by one access in each 2 MiB."""
        with self.device.map(USEMEM, 0, GIB, alignment=GIB) as mapping:
            before = resource.getrusage(resource.RUSAGE_SELF)
            took = _loops.touch(mapping.address, GIB, PMD)
            after = resource.getrusage(resource.RUSAGE_SELF)
        return took, after.ru_minflt + after.ru_majflt - before.ru_minflt - before.ru_majflt

    def open_and_close(self) -> float:
        """Return the seconds from asking for the device's file to its close, which are a reset each."""
        os.close(self.device.fd)
        self.device._fds.remove(self.device.fd)
        start = time.monotonic()
        os.close(self.device._device_fd(self.address))
        took = time.monotonic() - start
        self.device._fds.pop()
        self.device.fd = self.device._device_fd(self.address)
        return took


def in_pairs(ours: Callable[[], float], theirs: Callable[[], float], pairs: int) -> list:
    """Return [ours, theirs] for each pair; who is first changes, and the first pairs are thrown away."""
    found = []
    for number in range(WARM_UPS + pairs):
        if number % 2:
            second, first = theirs(), ours()
        else:
            first, second = ours(), theirs()
        found.append([first, second])
    return found[WARM_UPS:]


def sampler(gpu: Gpu, index: int, offset: int, size: int, write: bool) -> Callable[[], float]:
    """Return what takes one sample; how often it repeats the operation is found once."""
    once = gpu.transfers(index, offset, size, write, 1)
    once = min(once, gpu.transfers(index, offset, size, write, 1))
    count = max(1, int(SAMPLE / once))
    return lambda: gpu.transfers(index, offset, size, write, count)


def transfers(ours: Gpu, theirs: Gpu, pairs: int) -> dict:
    """Return read and write of both regions in both sizes."""
    found = {}
    for name, index in (("usemem", USEMEM), ("resmem", RESMEM)):
        for write in (False, True):
            for label, size in (("4 KiB", KIB4), ("2 MiB", PMD)):
                samplers = [sampler(gpu, index, 0, size, write) for gpu in (ours, theirs)]
                found[f"{name} {'write' if write else 'read'} {label}"] = in_pairs(*samplers, pairs)
    return found


def main(our_address: str, their_address: str, pairs: int) -> int:
    """Measure everything once with this assignment of drivers to GPUs."""
    ours, theirs = Gpu(our_address), Gpu(their_address)
    hole = ours.regions[USEMEM].areas[0].size
    size = 64 * MIB
    many = MORE * pairs
    found = transfers(ours, theirs, many)
    found["hole read 64 MiB"] = in_pairs(*(sampler(gpu, USEMEM, hole, size, False) for gpu in (ours, theirs)), pairs)
    found["hole read over memory read, 64 MiB"] = in_pairs(
        *(sampler(ours, USEMEM, offset, size, False) for offset in (hole, 0)), many)
    found["usemem read 64 MiB, fresh buffer"] = in_pairs(lambda: ours.fresh_read(size), lambda: theirs.fresh_read(size),
                                                         pairs)
    faults: dict = {"ours": set(), "theirs": set()}

    def touch(gpu: Gpu, who: str) -> float:
        took, count = gpu.first_touch()
        faults[who].add(count)
        return took

    found["first touch 1 GiB"] = in_pairs(lambda: touch(ours, "ours"), lambda: touch(theirs, "theirs"), many)
    found["open and close"] = in_pairs(ours.open_and_close, theirs.open_and_close, pairs)
    # Other faults of the process only add to it.
    print(json.dumps({"pairs": found, "faults": {who: min(counts) for who, counts in faults.items()}}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
