# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""One user of a stressed device: operations in random order, each checked as far as others' work lets it be."""

from __future__ import annotations

import errno
import os
import random
import struct
import sys
import traceback
from collections.abc import Mapping

import cdev_client
import vfio_client as vfio
from hostside import ADDRESS, COMMAND_MEMORY, DEVICE, EXPECTED, MIB, PAGE, PCI_COMMAND, write_once
from stress_board import OK, OTHER, WRONG, Board

CDEV = os.environ.get("GPU_API") == "cdev"
OpenDevice = cdev_client.Device if CDEV else vfio.Device
# What a second opener gets while the first one is there.
TAKEN = "EINVAL" if CDEV else "EBUSY"
PMD = 2 * MIB
# Memory that is one user's alone, so that what it reads has to be what it wrote.
SLOT = 2 * PMD
SLOT_DISTANCE = 64 * MIB
PIECE = 64 * 1024
FLAGS_64BIT_PREFETCHABLE = 0xC
# How often each operation is chosen. Two more disturb the others: only where they are asked for.
MIX = {"read": 60, "write": 60, "touch": 50, "fault": 20, "hole": 10, "config": 30, "reset": 4, "reopen": 8}
# Operations that touch a mapping, and so may end in SIGBUS.
TOUCHING = ("touch", "fault")
OPERATIONS = (*MIX, "decode", "host_reset")


class WrongDataError(Exception):
    """The device shows something else than it has to."""


class Slot:
    """A user's part of one region, and what has to be in it."""

    def __init__(self, index: int, user: int) -> None:
        """User 0 has the end of the memory, where the hole follows."""
        self.index = index
        mappable = EXPECTED[index].mappable
        self.offset = mappable - SLOT if user == 0 else (user - 1) * SLOT_DISTANCE
        self.model = bytearray(SLOT)
        # Unknown content: at the start, and after a write that did not end well.
        self.unknown = True

    def learn(self, device: vfio.Device) -> None:
        """Read what is in it, if that is not known."""
        if self.unknown:
            self.model[:] = device.read(self.index, self.offset, SLOT)
            self.unknown = False

    def compare(self, start: int, data: bytes, how: str) -> None:
        """Raise WrongDataError unless the data is what was written there."""
        if data != self.model[start:start + len(data)]:
            raise WrongDataError(f"{how} of region {self.index}, {len(data)} bytes at {self.offset + start:#x}")


class User:
    """Does operations on a device that it shares, and counts their outcomes on a board."""

    def __init__(self, board: Board, number: int, device: vfio.Device) -> None:
        """Take the place with that number on the board."""
        self._board = board
        self._number = number
        self._device = device
        self._random = random.Random()
        self._slots = [Slot(index, number) for index in EXPECTED]

    def work(self, mix: Mapping[str, int]) -> None:
        """Do operations until the board says stop."""
        names, weights = tuple(mix), tuple(mix.values())
        while not self._board.stopped():
            self.once(self._random.choices(names, weights)[0])

    def once(self, operation: str) -> None:
        """Do one operation and count its outcome."""
        self._board.begin(self._number, operation)
        outcome = OK
        try:
            getattr(self, "_" + operation)()
        except OSError as error:
            outcome = errno.errorcode.get(error.errno or 0, OTHER)
        except WrongDataError as error:
            print(error, file=sys.stderr, flush=True)
            outcome = WRONG
        except Exception:  # counted as what nobody expects
            traceback.print_exc()
            outcome = OTHER
        self._board.end(self._number, outcome)

    def _piece(self) -> tuple:
        """Return a slot with known content, and an offset and count in it."""
        slot = self._random.choice(self._slots)
        slot.learn(self._device)
        start = self._random.randrange(SLOT)
        return slot, start, self._random.randint(1, min(PIECE, SLOT - start))

    def _read(self) -> None:
        slot, start, count = self._piece()
        slot.compare(start, self._device.read(slot.index, slot.offset + start, count), "read")

    def _write(self) -> None:
        slot, start, count = self._piece()
        data = self._random.randbytes(count)
        slot.unknown = True
        done = self._device.write(slot.index, slot.offset + start, data)
        if done != count:
            raise WrongDataError(f"write of {count} bytes returned {done}")
        slot.model[start:start + count] = data
        slot.unknown = False

    def _touch(self) -> None:
        slot, start, count = self._piece()
        first = start // PAGE * PAGE
        last = self._random.randrange(start + count, SLOT + 1)
        data = self._random.randbytes(count)
        alignment = self._random.choice((0, PMD))
        with self._device.map(slot.index, slot.offset + first, last - first, alignment=alignment) as mapping:
            slot.compare(start, mapping.read(start - first, count), "mapping")
            slot.unknown = True
            mapping.write(start - first, data)
            slot.model[start:start + count] = data
            slot.unknown = False

    def _fault(self) -> None:
        """Touch a new mapping before anything else: no read has waited for the GPU."""
        slot = self._random.choice(self._slots)
        with self._device.map(slot.index, slot.offset, SLOT) as mapping:
            mapping.read(self._random.randrange(SLOT), 1)

    def _hole(self) -> None:
        for index, expected in EXPECTED.items():
            if expected.reported == expected.actual:
                continue
            data = self._device.read(index, expected.actual - 64, 128)
            if len(data) != 128 or data[64:] != b"\xff" * 64:
                raise WrongDataError(f"the hole of region {index}")
            if self._device.write(index, expected.actual, bytes(64)) != 64:
                raise WrongDataError(f"a dropped write of region {index}")

    def _config(self) -> None:
        """Any user's BAR values may be there, or none after a reset: the bits that are fixed have to be right."""
        header = self._device.config(0, 64)
        if header[:2] != b"\xde\x10":
            raise WrongDataError(f"the vendor id is {header[:2].hex()}")
        for index, expected in EXPECTED.items():
            where = vfio.BAR0_CONFIG_OFFSET + 4 * index
            value = struct.unpack_from("<Q", header, where)[0]
            if value & (expected.reported - 1) != FLAGS_64BIT_PREFETCHABLE:
                raise WrongDataError(f"BAR {index} reads {value:#x}")
            if self._device.write(vfio.CONFIG_REGION, where, self._random.randbytes(8)) != 8:
                raise WrongDataError(f"a short write of BAR {index}")

    def _reset(self) -> None:
        self._device.reset()

    def _host_reset(self) -> None:
        """What the host's administrator can do beside VFIO."""
        write_once(DEVICE + "/reset", "1")

    def _reopen(self) -> None:
        """Another file of the same device, where the group gives one; else the refusal of a second opener."""
        if CDEV:
            try:
                OpenDevice(ADDRESS).close()
            except OSError as error:
                if errno.errorcode[error.errno or 0] == TAKEN:
                    return
                raise
            raise WrongDataError("a second opener got the device")
        another = self._device._device_fd(ADDRESS)
        self._device._fds.remove(another)
        os.close(another)

    def _decode(self) -> None:
        before = struct.unpack("<H", self._device.config(PCI_COMMAND, 2))[0]
        for value in (before & ~COMMAND_MEMORY, before | COMMAND_MEMORY):
            self._device.write(vfio.CONFIG_REGION, PCI_COMMAND, struct.pack("<H", value))


def check_works() -> None:
    """Open the device, write and read each region, and see it through a mapping. Raises OSError, WrongDataError."""
    with OpenDevice(ADDRESS) as device:
        for index in EXPECTED:
            data = random.randbytes(PAGE)
            device.write(index, 0, data)
            if device.read(index, 0, PAGE) != data:
                raise WrongDataError(f"region {index} reads something else than was written")
            with device.map(index, 0, PMD, alignment=PMD) as mapping:
                if mapping.read(0, PAGE) != data:
                    raise WrongDataError(f"a mapping of region {index} shows something else than was written")
