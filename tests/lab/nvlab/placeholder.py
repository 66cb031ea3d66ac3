# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""A file within a disk whose content is filled in later, without a mount and without knowing its file systems.

A boot loader takes the archive of ACPI tables from a file on the host's disk, and the tables differ from host to host.
When the disk is made that file has marks in it; where they ended up on the disk, in as many copies as the loader made,
is noted; and a host's overlay gets the tables written there.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError

SECTOR = 512
SIZE = 64 << 10  # bytes; a DSDT of QEMU's is 10 KiB
MARK = b"nvgrace-lab ACPI placeholder "


@dataclass(frozen=True)
class Run:
    """A piece of the file: where it is on the disk, where in the file, and how long; bytes."""

    disk: int
    file: int
    length: int


def content() -> bytes:
    """Return the file as it is when the disk is made: a mark with its number in each sector."""
    return b"".join((MARK + b"%08d" % number).ljust(SECTOR, b".") for number in range(SIZE // SECTOR))


def filled(archive: bytes) -> bytes:
    """Return the file for a host. Raises LabError when the archive is too large; zeros after it mean nothing."""
    if len(archive) > SIZE:
        raise LabError(f"The ACPI tables take {len(archive)} bytes and the disk has room for {SIZE}.")
    return archive.ljust(SIZE, b"\0")


def data_ranges(descriptor: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of what a sparse file has, without its holes."""
    end = 0
    size = os.fstat(descriptor).st_size
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def find(disk: Path) -> list[Run]:
    """Return where the file is on a raw disk. Raises LabError when a part of it is nowhere."""
    marked: list[tuple[int, int]] = []
    with disk.open("rb") as handle, mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ) as view:
        for start, end in data_ranges(handle.fileno()):
            at = view.find(MARK, start, end)
            while at >= 0:
                number = view[at + len(MARK):at + len(MARK) + 8]
                if at % SECTOR == 0 and number.isdigit():
                    marked.append((at, int(number) * SECTOR))
                at = view.find(MARK, at + SECTOR - at % SECTOR, end)
    runs = joined(marked)
    missing = set(range(0, SIZE, SECTOR)) - {file for _, file in marked}
    if missing:
        raise LabError(f"{disk} lacks {len(missing)} of the {SIZE // SECTOR} sectors of the ACPI tables' file.")
    return runs


def joined(sectors: Sequence[tuple[int, int]]) -> list[Run]:
    """Return the runs that (disk, file) positions of sectors make."""
    runs: list[Run] = []
    for disk, file in sorted(sectors):
        last = runs[-1] if runs else None
        if last and (last.disk + last.length, last.file + last.length) == (disk, file):
            runs[-1] = Run(last.disk, last.file, last.length + SECTOR)
        else:
            runs.append(Run(disk, file, SECTOR))
    return runs
