# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's VFIO and iommufd interface: ioctl numbers, structures, and a parser that trusts nothing.

Source: include/uapi/linux/{vfio,iommufd}.h of Linux 7.3. All numbers are _IO(';', 100 + n): no size, no direction, the
same on arm64 and x86.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

from .._core.errors import PassthroughError

_BASE = ord(";") << 8 | 100

GET_API_VERSION = _BASE + 0
CHECK_EXTENSION = _BASE + 1
SET_IOMMU = _BASE + 2
GROUP_GET_STATUS = _BASE + 3
GROUP_SET_CONTAINER = _BASE + 4
GROUP_GET_DEVICE_FD = _BASE + 6
DEVICE_GET_INFO = _BASE + 7
DEVICE_GET_REGION_INFO = _BASE + 8
DEVICE_BIND_IOMMUFD = _BASE + 18
DEVICE_ATTACH_IOMMUFD_PT = _BASE + 19
IOMMUFD_IOAS_ALLOC = _BASE + 29

API_VERSION = 0
TYPE1V2_IOMMU = 3
GROUP_FLAGS_VIABLE = 1
DEVICE_FLAGS_PCI = 2

REGION_READ, REGION_WRITE, REGION_MMAP, REGION_CAPS = 1, 2, 4, 8
REGION_FLAG_NAMES = {REGION_READ: "read", REGION_WRITE: "write", REGION_MMAP: "mmap", REGION_CAPS: "caps"}

BAR_REGIONS = range(6)
ROM_REGION, CONFIG_REGION, VGA_REGION = 6, 7, 8
REGION_NAMES = ("BAR0", "BAR1", "BAR2", "BAR3", "BAR4", "BAR5", "ROM", "CONFIG", "VGA")

_CAP_SPARSE_MMAP = 1
_SPARSE_VERSION = 1
# vfio_info_cap_add() of the kernel; the capabilities of kernels without that rounding are multiples of it, too.
_CAP_ALIGNMENT = 8
_DEVICE_INFO = struct.Struct("=IIIIII")
_REGION_INFO = struct.Struct("=IIIIQQ")
_CAP_HEADER = struct.Struct("=HHI")
_SPARSE_HEADER = struct.Struct("=II")
_SPARSE_AREA = struct.Struct("=QQ")
# Larger answers are a lie or a kernel that this parser does not know: the largest today has some hundred bytes.
MAX_ARGSZ = 1 << 16
# loff_t: what lies behind cannot be read, written or mapped.
_LAST_OFFSET = (1 << 63) - 1


class UapiError(PassthroughError):
    """The kernel's answer contradicts itself or the question; the text is a clause that says how."""


@dataclass(frozen=True)
class Area:
    """A part of a region that may be mapped; bytes from the region's start."""

    offset: int
    size: int


@dataclass(frozen=True)
class RegionInfo:
    """One region as VFIO reports it. ``offset`` is its position in the device file; ``sparse`` is None where the region
    has no sparse-mmap capability."""

    index: int
    flags: int
    size: int
    offset: int
    sparse: Optional[tuple[Area, ...]] = None

    def flag_names(self) -> list[str]:
        return [name for bit, name in REGION_FLAG_NAMES.items() if self.flags & bit]


@dataclass(frozen=True)
class DeviceInfo:
    flags: int
    regions: int
    irqs: int


def device_info_request() -> bytearray:
    """struct vfio_device_info with its size filled in."""
    return bytearray(_DEVICE_INFO.pack(_DEVICE_INFO.size, 0, 0, 0, 0, 0))


def parse_device_info(buffer: bytearray) -> DeviceInfo:
    _argsz, flags, regions, irqs, _caps, _pad = _DEVICE_INFO.unpack_from(buffer)
    return DeviceInfo(flags, regions, irqs)


def region_info_request(index: int, argsz: int = _REGION_INFO.size) -> bytearray:
    """struct vfio_region_info for ``index`` with room for ``argsz`` bytes."""
    return bytearray(_REGION_INFO.pack(argsz, 0, index, 0, 0, 0)) + bytes(argsz - _REGION_INFO.size)


def region_info_needs(buffer: bytearray) -> int:
    """Bytes that the kernel wants for the whole answer; 0 where this buffer holds it.

    Raises UapiError for a size that no kernel means.
    """
    argsz, flags = _REGION_INFO.unpack_from(buffer)[:2]
    if not flags & REGION_CAPS or argsz <= len(buffer):
        return 0
    if argsz > MAX_ARGSZ:
        raise UapiError(f"the kernel asks for {argsz} bytes of region info")
    return int(argsz)


def parse_region_info(buffer: bytearray, asked: int) -> RegionInfo:
    """Parses a complete answer to a question about the region ``asked``. Raises UapiError for one that cannot be true:
    for another region, a place that no file has, a capability chain that goes back or leaves the answer, areas that
    overlap or leave the region."""
    if len(buffer) < _REGION_INFO.size:
        raise UapiError(f"the answer about region {asked} has {len(buffer)} bytes only")
    argsz, flags, index, cap_offset, size, offset = _REGION_INFO.unpack_from(buffer)
    if index != asked:
        raise UapiError(f"asked about region {asked}, the kernel answers about region {index}")
    if argsz < _REGION_INFO.size:
        raise UapiError(f"the kernel says that its answer about region {index} has {argsz} bytes")
    if offset + size > _LAST_OFFSET:
        raise UapiError(f"region {index} is said to have {size} bytes at {offset:#x}, where no file has any")
    if not flags & REGION_CAPS:
        return RegionInfo(index, flags, size, offset)
    if not cap_offset:
        raise UapiError(f"region {index} is said to have capabilities, and the answer has none")
    sparse = None
    for identifier, version, body in _capabilities(buffer, cap_offset, min(argsz, len(buffer)), index):
        if identifier != _CAP_SPARSE_MMAP:
            continue
        if sparse is not None:
            raise UapiError(f"region {index} has two sparse-mmap capabilities")
        if version != _SPARSE_VERSION:
            raise UapiError(f"the sparse-mmap capability of region {index} has the unknown version {version}")
        sparse = _parse_sparse(body, index, size)
    return RegionInfo(index, flags, size, offset, sparse)


def _capabilities(buffer: bytearray, position: int, end: int, index: int) -> Iterator[tuple[int, int, bytes]]:
    """Identifier, version and body of each capability. The kernel appends each one behind the last, so a chain that
    goes back is a lie, and one that only goes forward ends."""
    lowest = _REGION_INFO.size
    while position:
        where = f"the capability chain of region {index} points"
        if position < lowest:
            raise UapiError(f"{where} back, to {position}")
        if position % _CAP_ALIGNMENT:
            raise UapiError(f"{where} to {position}, which is not aligned")
        if position + _CAP_HEADER.size > end:
            raise UapiError(f"{where} outside the answer, to {position}")
        identifier, version, following = _CAP_HEADER.unpack_from(buffer, position)
        lowest = position + _CAP_HEADER.size
        stop = following if lowest <= following <= end else end
        yield identifier, version, bytes(buffer[lowest:stop])
        position = following


def _parse_sparse(body: bytes, index: int, region_size: int) -> tuple[Area, ...]:
    """The areas of a sparse-mmap capability, in the kernel's order."""
    where = f"the sparse-mmap capability of region {index}"
    if len(body) < _SPARSE_HEADER.size:
        raise UapiError(f"{where} is cut off")
    count, _reserved = _SPARSE_HEADER.unpack_from(body)
    if _SPARSE_HEADER.size + count * _SPARSE_AREA.size > len(body):
        raise UapiError(f"{where} claims {count} areas, more than fit")
    areas = tuple(Area(*_SPARSE_AREA.unpack_from(body, _SPARSE_HEADER.size + number * _SPARSE_AREA.size))
                  for number in range(count))
    reached = 0
    for area in sorted(areas, key=lambda item: item.offset):
        if not area.size:
            raise UapiError(f"{where} has an area without a byte at {area.offset:#x}")
        if area.offset < reached:
            raise UapiError(f"{where} has areas that overlap at {area.offset:#x}")
        reached = area.offset + area.size
        if reached > region_size:
            raise UapiError(f"{where} has an area that ends at {reached:#x}, and the region has {region_size} bytes")
    return areas


def group_status_request() -> bytearray:
    """struct vfio_group_status."""
    return bytearray(struct.pack("=II", 8, 0))


def group_is_viable(buffer: bytearray) -> bool:
    return bool(struct.unpack_from("=II", buffer)[1] & GROUP_FLAGS_VIABLE)


def file_descriptor(handle: int) -> bytearray:
    """The int that VFIO_GROUP_SET_CONTAINER points to."""
    return bytearray(struct.pack("=i", handle))


def device_name(address: str) -> bytearray:
    """The C string that VFIO_GROUP_GET_DEVICE_FD wants."""
    return bytearray(address.encode() + b"\0")


def bind_iommufd_request(iommufd: int) -> bytearray:
    """struct vfio_device_bind_iommufd without its token, which older kernels do not know."""
    return bytearray(struct.pack("=IIiI", 16, 0, iommufd, 0))


def ioas_alloc_request() -> bytearray:
    """struct iommu_ioas_alloc."""
    return bytearray(struct.pack("=III", 12, 0, 0))


def parse_ioas_alloc(buffer: bytearray) -> int:
    """The id of the new I/O address space."""
    return int(struct.unpack_from("=III", buffer)[2])


def attach_request(ioas: int) -> bytearray:
    """struct vfio_device_attach_iommufd_pt without its PASID, which older kernels do not know."""
    return bytearray(struct.pack("=III", 12, 0, ioas))
