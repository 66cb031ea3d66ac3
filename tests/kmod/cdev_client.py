#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The twin of vfio_client.Device for the device's own character device and iommufd.

Run as a program with a PCI address it prints what VFIO shows of that device as JSON. Opening a device resets it.
Numbers and layouts are those of include/uapi/linux/vfio.h and iommufd.h.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
import sys

import vfio_client

_TYPE = ord(";") << 8
BIND_IOMMUFD = _TYPE | 118
ATTACH_IOMMUFD_PT = _TYPE | 119
DETACH_IOMMUFD_PT = _TYPE | 120
IOMMU_DESTROY = _TYPE | 0x80
IOAS_ALLOC = _TYPE | 0x81
IOAS_MAP = _TYPE | 0x85
IOAS_UNMAP = _TYPE | 0x86
IOAS_MAP_FIXED_IOVA, IOAS_MAP_WRITEABLE, IOAS_MAP_READABLE = 1, 2, 4


def cdev_path(address: str) -> str:
    """Return the character device of a function. Raises OSError ENOENT on a kernel without them."""
    return "/dev/vfio/devices/" + os.listdir(f"/sys/bus/pci/devices/{address}/vfio-dev")[0]


class Device(vfio_client.Device):
    """An open VFIO device, by way of its character device. Opening it resets the function."""

    def __init__(self, address: str) -> None:
        """Open by PCI address, bind to an iommufd and attach to an address space of it. Raises OSError."""
        self._fds: list = []
        try:
            self.iommufd = self._open("/dev/iommu")
            self.fd = self._open(cdev_path(address))
            self._bind()
            self.ioas = self._allocate_ioas()
            self.attach()
        except BaseException:
            self.close()
            raise

    def _bind(self) -> None:
        self.device_id = struct.unpack_from("I", self._call(self.fd, BIND_IOMMUFD, "=IIiI", 0, self.iommufd, 0), 12)[0]

    def _allocate_ioas(self) -> int:
        return int(struct.unpack_from("I", self._call(self.iommufd, IOAS_ALLOC, "=III", 0, 0), 8)[0])

    @staticmethod
    def _call(fd: int, number: int, layout: str, *fields: int) -> bytearray:
        """Pass a structure that begins with its own size; return it as the kernel left it."""
        buffer = bytearray(struct.pack(layout, struct.calcsize(layout), *fields))
        fcntl.ioctl(fd, number, buffer)
        return buffer

    def attach(self) -> None:
        """Attach to the address space. Raises OSError."""
        self._call(self.fd, ATTACH_IOMMUFD_PT, "=III", 0, self.ioas)

    def detach(self) -> None:
        """Detach from the address space. Raises OSError."""
        self._call(self.fd, DETACH_IOMMUFD_PT, "=II", 0)

    def destroy_ioas(self) -> None:
        """Remove the address space, which nothing may be attached to. Raises OSError."""
        self._call(self.iommufd, IOMMU_DESTROY, "=II", self.ioas)

    def map_dma(self, address: int, length: int, iova: int) -> None:
        """Give the device user memory at an address of its own. Raises OSError."""
        flags = IOAS_MAP_FIXED_IOVA | IOAS_MAP_WRITEABLE | IOAS_MAP_READABLE
        self._call(self.iommufd, IOAS_MAP, "=IIIIQQQ", flags, self.ioas, 0, address, length, iova)

    def unmap_dma(self, length: int, iova: int) -> None:
        """Take it away again. Raises OSError."""
        self._call(self.iommufd, IOAS_UNMAP, "=IIQQ", self.ioas, iova, length)


def unbound_info_errno(address: str) -> int:
    """Return the errno of VFIO_DEVICE_GET_INFO on a device that no iommufd has, 0 if it is answered."""
    fd = os.open(cdev_path(address), os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, vfio_client.DEVICE_GET_INFO, bytearray(struct.pack("6I", 24, 0, 0, 0, 0, 0)))
    except OSError as error:
        return error.errno or errno.EIO
    finally:
        os.close(fd)
    return 0


def take_over() -> None:
    """Have everything that opens vfio_client.Device open this one; before others import the class by name."""
    vfio_client.Device = Device  # type: ignore[misc]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: cdev_client.py PCI_ADDRESS")
    take_over()
    print(json.dumps(vfio_client.describe(sys.argv[1]), indent=1))
