# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""What is behind a BAR: bytes that read as zero until they are written, and cost memory only then."""

from __future__ import annotations

PAGE = 4096


class Registers:
    """A range of ``size`` bytes. Accesses outside of it raise ValueError. Where it is not writable, writes are lost."""

    def __init__(self, size: int, writable: bool = True) -> None:
        self.size = size
        self._writable = writable
        self._pages: dict[int, bytearray] = {}

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes."""
        self._check(offset, count)
        data = bytearray()
        while len(data) < count:
            page, at = divmod(offset + len(data), PAGE)
            length = min(PAGE - at, count - len(data))
            data += self._pages[page][at:at + length] if page in self._pages else bytes(length)
        return bytes(data)

    def write(self, offset: int, data: bytes) -> None:
        """Store ``data``."""
        self._check(offset, len(data))
        if not self._writable:
            return
        done = 0
        while done < len(data):
            page, at = divmod(offset + done, PAGE)
            part = data[done:done + PAGE - at]
            self._pages.setdefault(page, bytearray(PAGE))[at:at + len(part)] = part
            done += len(part)

    def _check(self, offset: int, count: int) -> None:
        if offset < 0 or count < 0 or offset + count > self.size:
            raise ValueError(f"access of {count} bytes at {offset:#x} leaves the {self.size} bytes of the region")
