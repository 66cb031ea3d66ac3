# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's VFIO and iommufd interface: ioctl numbers, structures, and a parser that trusts nothing.

Source: include/uapi/linux/{vfio,iommufd}.h of Linux 7.3. All numbers are _IO(';', 100 + n): no size, no direction, the
same on arm64 and x86.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Optional

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
_DEVICE_INFO = struct.Struct("=IIIIII")
_REGION_INFO = struct.Struct("=IIIIQQ")
_CAP_HEADER = struct.Struct("=HHI")
_SPARSE_HEADER = struct.Struct("=II")
_SPARSE_AREA = struct.Struct("=QQ")
# Larger answers are a lie or a kernel that this parser does not know: the largest today has some hundred bytes.
MAX_ARGSZ = 1 << 16


class UapiError(Exception):
    """The kernel's answer contradicts itself; the text says how."""


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


def parse_region_info(buffer: bytearray) -> RegionInfo:
    """Parses a complete answer. Raises UapiError for a capability chain that loops or leaves the buffer."""
    _argsz, flags, index, cap_offset, size, offset = _REGION_INFO.unpack_from(buffer)
    sparse = None
    seen = set()
    position = cap_offset if flags & REGION_CAPS else 0
    while position:
        if position in seen:
            raise UapiError(f"the capability chain of region {index} loops at {position}")
        if position < _REGION_INFO.size or position + _CAP_HEADER.size > len(buffer):
            raise UapiError(f"the capability chain of region {index} points outside the answer, to {position}")
        seen.add(position)
        identifier, _version, following = _CAP_HEADER.unpack_from(buffer, position)
        if identifier == _CAP_SPARSE_MMAP:
            sparse = _parse_sparse(buffer, position + _CAP_HEADER.size, index)
        position = following
    return RegionInfo(index, flags, size, offset, sparse)


def _parse_sparse(buffer: bytearray, position: int, index: int) -> tuple[Area, ...]:
    if position + _SPARSE_HEADER.size > len(buffer):
        raise UapiError(f"the sparse-mmap capability of region {index} is cut off")
    count, _reserved = _SPARSE_HEADER.unpack_from(buffer, position)
    first = position + _SPARSE_HEADER.size
    if first + count * _SPARSE_AREA.size > len(buffer):
        raise UapiError(f"the sparse-mmap capability of region {index} claims {count} areas, more than fit")
    return tuple(Area(*_SPARSE_AREA.unpack_from(buffer, first + number * _SPARSE_AREA.size)) for number in range(count))


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
