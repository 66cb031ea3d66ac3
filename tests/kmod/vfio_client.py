#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""A VFIO user in pure Python: the group API, one device, nothing of the collection's own code.

Written on its own so that tests and verification do not ask the collection whether the collection is right.
Run as a program with a PCI address it prints what VFIO shows of that device as JSON. Opening a device resets it.
Numbers and layouts are those of include/uapi/linux/vfio.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Optional

_TYPE = ord(";") << 8
CHECK_EXTENSION = _TYPE | 101
SET_IOMMU = _TYPE | 102
GROUP_GET_STATUS = _TYPE | 103
GROUP_SET_CONTAINER = _TYPE | 104
GROUP_GET_DEVICE_FD = _TYPE | 106
DEVICE_GET_INFO = _TYPE | 107
DEVICE_GET_REGION_INFO = _TYPE | 108
DEVICE_RESET = _TYPE | 111
IOMMU_MAP_DMA = _TYPE | 113
IOMMU_UNMAP_DMA = _TYPE | 114
DEVICE_IOEVENTFD = _TYPE | 116
DEVICE_FEATURE = _TYPE | 117

TYPE1V2_IOMMU = 3
GROUP_VIABLE = 1
FLAG_READ, FLAG_WRITE, FLAG_MMAP, FLAG_CAPS = 1, 2, 4, 8
CAP_SPARSE_MMAP = 1
FEATURE_GET, FEATURE_SET, FEATURE_PROBE = 1 << 16, 1 << 17, 1 << 18
FEATURE_LOW_POWER_ENTRY, FEATURE_LOW_POWER_EXIT = 3, 5
CONFIG_REGION = 7
BAR0_CONFIG_OFFSET = 0x10

INFO_FORMAT = "IIIIQQ"  # argsz, flags, index, cap_offset, size, offset
INFO_SIZE = struct.calcsize(INFO_FORMAT)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_MAP_FAILED = ctypes.c_void_p(-1).value


@dataclass(frozen=True)
class Area:
    """One area of the sparse-mmap capability, in bytes."""

    offset: int
    size: int


@dataclass(frozen=True)
class Region:
    """What VFIO_DEVICE_GET_REGION_INFO says: size and offset in bytes; ``areas`` is None without the capability."""

    index: int
    flags: int
    size: int
    offset: int
    areas: Optional[tuple]


class Mapping:
    """An mmap of a device region; a plain address, because Python's own mmap wants to stat the file."""

    def __init__(self, fd: int, offset: int, length: int, flags: int = mmap.MAP_SHARED,
                 protection: int = mmap.PROT_READ | mmap.PROT_WRITE, alignment: int = 0) -> None:
        """Map ``length`` bytes, at an address that is a multiple of ``alignment`` if given. Raises OSError."""
        self.length = length
        hint = self._aligned_hint(length, alignment) if alignment else None
        address = _libc.mmap(hint, length, protection, flags, fd, offset)
        if address == _MAP_FAILED:
            code = ctypes.get_errno()
            raise OSError(code, "mmap: " + os.strerror(code))
        self.address: int = address

    @staticmethod
    def _aligned_hint(length: int, alignment: int) -> int:
        """Return a free address with that alignment: found by reserving more and giving it back."""
        room = length + alignment
        address = _libc.mmap(None, room, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        _libc.munmap(address, room)
        return (address + alignment - 1) // alignment * alignment

    def read(self, offset: int, count: int) -> bytes:
        """Return bytes of the mapping. Other threads run meanwhile, which string_at() would not allow."""
        buffer = ctypes.create_string_buffer(count)
        ctypes.memmove(buffer, self.address + offset, count)
        return buffer.raw

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes into the mapping."""
        ctypes.memmove(self.address + offset, data, len(data))

    def touch(self, step: int) -> None:
        """Access one byte in each ``step``, 1024 bytes at most: by one system call, so that nothing else faults."""
        places = range(self.address, self.address + self.length, step)
        vector = struct.pack(f"{2 * len(places)}Q", *(word for place in places for word in (place, 1)))
        reader, writer = os.pipe()
        try:
            if _libc.writev(writer, vector, len(places)) != len(places):
                raise OSError(ctypes.get_errno(), "writev")
        finally:
            os.close(reader)
            os.close(writer)

    def close(self) -> None:
        """Unmap."""
        _libc.munmap(self.address, self.length)

    def __enter__(self) -> Mapping:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class Device:
    """An open VFIO device. Opening it resets the function."""

    def __init__(self, address: str) -> None:
        """Open by PCI address through its group. Raises OSError, RuntimeError for a group that is not viable."""
        link = os.readlink(f"/sys/bus/pci/devices/{address}/iommu_group")
        self._fds: list = []
        try:
            self.container = self._open("/dev/vfio/vfio")
            if not fcntl.ioctl(self.container, CHECK_EXTENSION, TYPE1V2_IOMMU):
                raise RuntimeError("this kernel has no type1v2 IOMMU backend")
            self.group = self._open("/dev/vfio/" + os.path.basename(link))
            self._join_container()
            self.fd = self._device_fd(address)
        except BaseException:
            self.close()
            raise

    def _open(self, path: str) -> int:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._fds.append(fd)
        return fd

    def _join_container(self) -> None:
        status = bytearray(struct.pack("II", 8, 0))
        fcntl.ioctl(self.group, GROUP_GET_STATUS, status)
        if not struct.unpack("II", status)[1] & GROUP_VIABLE:
            raise RuntimeError("the IOMMU group is not viable: a member has a driver that is not VFIO's")
        fcntl.ioctl(self.group, GROUP_SET_CONTAINER, struct.pack("i", self.container))
        fcntl.ioctl(self.container, SET_IOMMU, TYPE1V2_IOMMU)

    def _device_fd(self, address: str) -> int:
        fd = _libc.ioctl(self.group, GROUP_GET_DEVICE_FD, ctypes.create_string_buffer(address.encode()))
        if fd < 0:
            code = ctypes.get_errno()
            raise OSError(code, "VFIO_GROUP_GET_DEVICE_FD: " + os.strerror(code))
        self._fds.append(fd)
        return fd

    def close(self) -> None:
        """Close device, group, container: in that order."""
        while self._fds:
            os.close(self._fds.pop())

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def region_count(self) -> int:
        """Return the number of regions."""
        info = bytearray(struct.pack("IIIIII", 24, 0, 0, 0, 0, 0))
        fcntl.ioctl(self.fd, DEVICE_GET_INFO, info)
        return struct.unpack("IIIIII", info)[2]

    def raw_region_info(self, index: int, argsz: int, room: int = 4096) -> bytearray:
        """Return the buffer of one VFIO_DEVICE_GET_REGION_INFO with that argsz. Raises OSError."""
        buffer = bytearray(struct.pack(INFO_FORMAT, argsz, 0, index, 0, 0, 0).ljust(room, b"\0"))
        fcntl.ioctl(self.fd, DEVICE_GET_REGION_INFO, buffer)
        return buffer

    def region(self, index: int) -> Region:
        """Return a region by the two-call protocol. Raises OSError."""
        buffer = self.raw_region_info(index, INFO_SIZE)
        argsz, flags = struct.unpack_from("II", buffer)
        if flags & FLAG_CAPS and argsz > INFO_SIZE:
            buffer = self.raw_region_info(index, argsz)
        _argsz, flags, _index, cap, size, offset = struct.unpack_from(INFO_FORMAT, buffer)
        areas = None
        for start, cap_id in _capabilities(buffer, cap if flags & FLAG_CAPS else 0):
            if cap_id == CAP_SPARSE_MMAP:
                count = struct.unpack_from("I", buffer, start + 8)[0]
                areas = tuple(Area(*struct.unpack_from("QQ", buffer, start + 16 + 16 * i)) for i in range(count))
        return Region(index, flags, size, offset, areas)

    def read(self, index: int, offset: int, count: int) -> bytes:
        """Return bytes of a region; fewer than ``count`` when the driver clips. Raises OSError."""
        return os.pread(self.fd, count, self.region(index).offset + offset)

    def write(self, index: int, offset: int, data: bytes) -> int:
        """Write to a region and return the number of bytes that the driver took. Raises OSError."""
        return os.pwrite(self.fd, data, self.region(index).offset + offset)

    def map(self, index: int, offset: int, length: int, **options: int) -> Mapping:
        """Map part of a region. Raises OSError."""
        return Mapping(self.fd, self.region(index).offset + offset, length, **options)

    def config(self, offset: int, count: int) -> bytes:
        """Return config space bytes by one read."""
        return self.read(CONFIG_REGION, offset, count)

    def reset(self) -> None:
        """VFIO_DEVICE_RESET. Raises OSError."""
        fcntl.ioctl(self.fd, DEVICE_RESET)

    def feature(self, number: int, flags: int, data: bytes = b"") -> bytearray:
        """VFIO_DEVICE_FEATURE; returns the data as the kernel left it. Raises OSError."""
        buffer = bytearray(struct.pack("II", 8 + len(data), flags | number) + data)
        fcntl.ioctl(self.fd, DEVICE_FEATURE, buffer)
        return buffer[8:]

    def bar_size(self, index: int) -> int:
        """Return the size that the 64-bit BAR register ``index`` decodes, in bytes; the value is put back."""
        offset = BAR0_CONFIG_OFFSET + 4 * index
        before = self.config(offset, 8)
        self.write(CONFIG_REGION, offset, b"\xff" * 8)
        mask = struct.unpack("<Q", self.config(offset, 8))[0] & ~0xF
        self.write(CONFIG_REGION, offset, before)
        return (~mask + 1) & 0xFFFFFFFFFFFFFFFF


def _capabilities(buffer: Sequence[int], start: int) -> Iterator[tuple]:
    """Yield (position, id) along the chain; a chain that leaves the buffer or runs in a circle is an error."""
    seen = set()
    while start:
        if start in seen or start + 8 > len(buffer):
            raise RuntimeError("broken capability chain in the region info")
        seen.add(start)
        cap_id, _version, following = struct.unpack_from("HHI", buffer, start)
        yield start, cap_id
        start = following


def describe(address: str) -> dict:
    """Return what VFIO shows of a device, as plain data."""
    with Device(address) as device:
        regions = []
        for index in range(device.region_count()):
            try:
                region = device.region(index)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                continue
            if region.size:
                regions.append(asdict(region))
        bars = {str(i): struct.unpack("<I", device.config(BAR0_CONFIG_OFFSET + 4 * i, 4))[0] for i in range(6)}
    return {"address": address, "regions": regions, "bar_registers": bars}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: vfio_client.py PCI_ADDRESS")
    print(json.dumps(describe(sys.argv[1]), indent=1))
