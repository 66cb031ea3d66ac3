# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model of VFIO: the system calls of a device with emulated regions, whose memory is a sparse file."""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Union

from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio import uapi
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.device import Kernel

GIB, MIB = 1 << 30, 1 << 20
CONTAINER, GROUP, DEVICE, IOMMUFD = 1000, 1001, 1002, 1003
_SHIFT = 40


@dataclass
class Region:
    """``actual`` None: a physical region without sparse area."""

    size: int
    actual: Optional[int] = None
    flags: int = 7
    register: int = 0xC
    base: int = 0


def refusal(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@dataclass
class FakeKernel(Kernel):
    """``fail`` has the error number of an action: a path, or an ioctl's number. ``lie`` changes an answer about a
    region before it is given. ``one_bar`` is what the kernel's own driver does: a config read over several BARs
    shows one. Checks run in children, so what they write is in files below ``root``, not in memory."""

    root: Path
    regions: dict[int, Region]
    fail: dict[Any, int] = field(default_factory=dict)
    viable: bool = True
    api_version: int = 0
    hole: int = 0xFF
    short_reads: bool = False
    keeps_hole_writes: bool = False
    reads_past_end: bool = False
    maps_the_hole: bool = False
    one_bar: bool = False
    config_reads: int = 4096
    lie: Optional[Callable[[int, bytearray], None]] = None
    mapping: Optional[Callable[[int, int, int], Any]] = None
    device_flags: int = uapi.DEVICE_FLAGS_PCI
    closed: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.memory = self.root / "gpu-memory"
        self.memory.touch()
        os.truncate(self.memory, 8 * GIB)
        self.bars = self.root / "bar-registers"
        self.bars.write_bytes(bytes(24))

    def open(self, path: str) -> int:
        if path in self.fail:
            raise refusal(self.fail[path])
        if path == "/dev/vfio/vfio":
            return CONTAINER
        if path == "/dev/iommu":
            return IOMMUFD
        return DEVICE if "devices" in path else GROUP

    def close(self, handle: int) -> None:
        self.closed.append(handle)

    def ioctl(self, handle: int, request: int, argument: Union[int, bytearray]) -> int:
        if request in self.fail:
            raise refusal(self.fail[request])
        if request == uapi.GET_API_VERSION:
            return self.api_version
        if request == uapi.GROUP_GET_DEVICE_FD:
            with open(self.root / "opened", "ab") as log:
                log.write(bytes(argument).rstrip(b"\0") + b"\n")  # type: ignore[arg-type]
            return DEVICE
        if isinstance(argument, bytearray):
            self._answer(request, argument)
        return 1 if request == uapi.CHECK_EXTENSION else 0

    def _answer(self, request: int, buffer: bytearray) -> None:
        if request == uapi.GROUP_GET_STATUS:
            struct.pack_into("=II", buffer, 0, 8, int(self.viable))
        elif request == uapi.DEVICE_GET_INFO:
            struct.pack_into("=IIII", buffer, 0, 24, self.device_flags, 9, 5)
        elif request == uapi.IOMMUFD_IOAS_ALLOC:
            struct.pack_into("=III", buffer, 0, 12, 0, 77)
        elif request == uapi.DEVICE_GET_REGION_INFO:
            self._region_info(buffer)

    def _region_info(self, buffer: bytearray) -> None:
        argsz, _flags, index = struct.unpack_from("=III", buffer)
        if index == uapi.VGA_REGION:
            raise refusal(errno.EINVAL)
        region = self.regions.get(index, Region(0, flags=0))
        flags, cap, needed = region.flags, 0, 32
        if region.actual is not None:
            flags |= uapi.REGION_CAPS
            needed = 64
            if argsz >= needed:
                cap = 32
                struct.pack_into("=HHIIIQQ", buffer, 32, 1, 1, 0, 1, 0, 0, region.actual)
        struct.pack_into("=IIIIQQ", buffer, 0, needed, flags, index, cap, region.size, index << _SHIFT)
        if self.lie is not None:
            self.lie(index, buffer)

    def _region(self, index: int) -> Region:
        """The region that an offset leads to; the kernel refuses one that it does not have."""
        if index not in self.regions:
            raise refusal(errno.EINVAL)
        return self.regions[index]

    def pread(self, handle: int, count: int, offset: int) -> bytes:
        index, position = offset >> _SHIFT, offset & ((1 << _SHIFT) - 1)
        if index == uapi.CONFIG_REGION:
            return self._config(position, count)
        region = self._region(index)
        if position >= region.size and not self.reads_past_end:
            raise refusal(errno.EINVAL)
        actual = region.actual or region.size
        real = max(0, min(count, actual - position))
        data = b""
        if real:
            with open(self.memory, "rb") as memory:
                memory.seek(region.base + position)
                data = memory.read(real)
        return data if self.short_reads and real else data + bytes([self.hole]) * (count - real)

    def _config(self, position: int, count: int) -> bytes:
        config = bytearray(4096)
        written = self.bars.read_bytes()
        for index in range(6):
            region = self.regions.get(index)
            if region is None or not region.size or (self.one_bar and count > 8 and index == 4):
                continue
            length = 8 if region.register & 4 else 4
            stored = int.from_bytes(written[4 * index:4 * index + length], "little") or region.register
            value = stored & ~(region.size - 1) | region.register & 0xF
            config[0x10 + 4 * index:0x10 + 4 * index + length] = value.to_bytes(length, "little")
        return bytes(config[position:min(position + count, self.config_reads)])

    def pwrite(self, handle: int, data: bytes, offset: int) -> int:
        index, position = offset >> _SHIFT, offset & ((1 << _SHIFT) - 1)
        if index == uapi.CONFIG_REGION:
            written = bytearray(self.bars.read_bytes())
            written[position - 0x10:position - 0x10 + len(data)] = data
            self.bars.write_bytes(written)
            return len(data)
        region = self._region(index)
        if position < (region.actual or region.size):
            with open(self.memory, "r+b") as memory:
                memory.seek(region.base + position)
                memory.write(data)
        elif self.keeps_hole_writes:
            return len(data) - 1
        return len(data)

    def map_shared(self, handle: int, length: int, offset: int) -> Any:
        index, position = offset >> _SHIFT, offset & ((1 << _SHIFT) - 1)
        if self.mapping is not None:
            return self.mapping(index, length, position)
        region = self._region(index)
        if position + length > (region.actual or region.size) and not self.maps_the_hole:
            raise refusal(errno.EINVAL)
        with open(self.memory, "r+b") as memory:
            return mmap.mmap(memory.fileno(), length, offset=region.base + position)

    def openings(self) -> list[str]:
        path = self.root / "opened"
        return path.read_text().splitlines() if path.exists() else []


def hopper_regions() -> dict[int, Region]:
    """2560 MiB of memory: 1.5 GiB of usemem in a BAR of 2 GiB, 1 GiB of resmem."""
    return {0: Region(16 * MIB), 2: Region(GIB, GIB, base=4 * GIB), 4: Region(2 * GIB, 1536 * MIB),
            6: Region(0, flags=0), 7: Region(4096, flags=3)}


def blackwell_regions() -> dict[int, Region]:
    """1280 MiB of usemem and a physical BAR2."""
    return {0: Region(16 * MIB), 2: Region(32 * MIB), 4: Region(2 * GIB, 1280 * MIB), 7: Region(4096, flags=3)}


def plain_regions() -> dict[int, Region]:
    return {0: Region(16 * MIB), 7: Region(4096, flags=3)}
