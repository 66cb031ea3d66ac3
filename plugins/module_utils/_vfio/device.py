# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adapter: one VFIO device, opened through its group or through its own character device."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from typing import Any, Optional, Union

from .._core.errors import PassthroughError
from .._core.host import Host
from .._gpu.isolation import read_unsafe_setting
from .._gpu.model import PciFunction
from .._gpu.sysfs import group_isolates
from . import uapi
from .record import DeviceInUseError

# One to learn how much room the answer needs, one with that room, and one in case a hot reset changed it between them.
_REGION_INFO_CALLS = 3


class Kernel:
    """The system calls that VFIO needs; tests put a device model in its place."""

    def open(self, path: str) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def close(self, handle: int) -> None:
        os.close(handle)

    def ioctl(self, handle: int, request: int, argument: Union[int, bytearray]) -> int:
        """The call's return value; what the kernel writes goes into the bytearray."""
        return fcntl.ioctl(handle, request, argument)

    def pread(self, handle: int, count: int, offset: int) -> bytes:
        return os.pread(handle, count, offset)

    def pwrite(self, handle: int, data: bytes, offset: int) -> int:
        return os.pwrite(handle, data, offset)

    def map_shared(self, handle: int, length: int, offset: int) -> Any:
        """A MAP_SHARED mapping: nvgrace drivers up to 7.3 crash the kernel on a private one."""
        return mmap.mmap(handle, length, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=offset)


class VfioDevice:
    """An open device. Regions are addressed by the offsets that the kernel reports, never by computed ones."""

    def __init__(self, kernel: Kernel, handle: int) -> None:
        self.kernel = kernel
        self.handle = handle

    def info(self) -> uapi.DeviceInfo:
        buffer = uapi.device_info_request()
        self.kernel.ioctl(self.handle, uapi.DEVICE_GET_INFO, buffer)
        return uapi.parse_device_info(buffer)

    def region(self, index: int) -> Optional[uapi.RegionInfo]:
        """One region, or None where the device has none with this index. Raises UapiError for a senseless answer."""
        buffer = uapi.region_info_request(index)
        for _attempt in range(_REGION_INFO_CALLS):
            try:
                self.kernel.ioctl(self.handle, uapi.DEVICE_GET_REGION_INFO, buffer)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    return None
                raise
            needed = uapi.region_info_needs(buffer)
            if not needed:
                return uapi.parse_region_info(buffer, index)
            buffer = uapi.region_info_request(index, needed)
        raise uapi.UapiError(f"the kernel asks for more room for region {index} each time, {needed} bytes at last")

    def read(self, region: uapi.RegionInfo, offset: int, count: int) -> bytes:
        """read(2) at a place of a region; may return less."""
        return self.kernel.pread(self.handle, count, region.offset + offset)

    def write(self, region: uapi.RegionInfo, offset: int, data: bytes) -> int:
        """write(2) at a place of a region; the count that the kernel took."""
        return self.kernel.pwrite(self.handle, data, region.offset + offset)

    def map(self, region: uapi.RegionInfo, offset: int, length: int) -> Any:
        """A shared mapping of a part of a region; the caller closes it."""
        return self.kernel.map_shared(self.handle, length, region.offset + offset)


def choose_api(host: Host, function: PciFunction, wanted: str) -> str:
    """``group`` or ``cdev``: the group where both are there, because every kernel has it. Raises PassthroughError where
    the wanted one, or both, are missing on this kernel, and where nothing isolates the device."""
    unsafe = read_unsafe_setting(host)
    if unsafe is not None:
        raise PassthroughError(f"{unsafe} is on, so that VFIO takes devices that nothing isolates, and "
                               f"{function.address} is not opened: remove it from modprobe.d and the kernel command "
                               "line, then reboot.")
    if function.group is not None and not group_isolates(host, function.group):
        raise PassthroughError(f"{function.address} is in VFIO's no-IOMMU mode, which isolates nothing: the collection "
                               "never uses it. Switch the IOMMU on and bind it with gpu_driver.")
    group = function.group is not None and host.exists(f"/dev/vfio/{function.group}")
    cdev = function.vfio_device is not None and host.exists(f"/dev/vfio/devices/{function.vfio_device}") \
        and host.exists("/dev/iommu")
    if wanted == "cdev" and not cdev:
        raise PassthroughError(f"{function.address} has no VFIO character device, because this kernel is built without "
                               "IOMMUFD or VFIO_DEVICE_CDEV: use api auto or group.")
    if wanted == "group" and not group:
        raise PassthroughError(f"{function.address} has no VFIO group node /dev/vfio/{function.group}: bind it with "
                               "gpu_driver first, or use api auto.")
    if not group and not cdev:
        raise PassthroughError(f"{function.address} has neither a VFIO group node nor a character device: bind it with "
                               "gpu_driver first.")
    return wanted if wanted != "auto" else "group" if group else "cdev"


@contextlib.contextmanager
def open_device(function: PciFunction, api: str, kernel: Kernel) -> Iterator[VfioDevice]:
    """Opens the device, which resets it. Raises DeviceInUseError, or PassthroughError with what the error means; an
    OSError of the block becomes one, too."""
    with contextlib.ExitStack() as stack, _explained(function.address, "question the device"):
        handle = _open_group(function, kernel, stack) if api == "group" else _open_cdev(function, kernel, stack)
        yield VfioDevice(kernel, handle)


def _open_group(function: PciFunction, kernel: Kernel, stack: contextlib.ExitStack) -> int:
    where = f"{function.address} (IOMMU group {function.group})"
    with _explained(where, "open /dev/vfio/vfio"):
        container = _kept(kernel.open("/dev/vfio/vfio"), kernel, stack)
    with _explained(where, "question /dev/vfio/vfio"):
        version = kernel.ioctl(container, uapi.GET_API_VERSION, 0)
        type1 = kernel.ioctl(container, uapi.CHECK_EXTENSION, uapi.TYPE1V2_IOMMU)
    if version != uapi.API_VERSION or not type1:
        raise PassthroughError(f"{where}: VFIO has no type 1 IOMMU backend: load the module vfio_iommu_type1.")
    with _explained(where, "open the group"):
        group = _kept(kernel.open(f"/dev/vfio/{function.group}"), kernel, stack)
    status = uapi.group_status_request()
    with _explained(where, "question the group"):
        kernel.ioctl(group, uapi.GROUP_GET_STATUS, status)
    if not uapi.group_is_viable(status):
        raise PassthroughError(f"{where} is not viable: a member of the group is bound to a driver that is not VFIO. "
                               "Bind all members with gpu_driver and group_consent.")
    with _explained(where, "put the group into a container"):
        kernel.ioctl(group, uapi.GROUP_SET_CONTAINER, uapi.file_descriptor(container))
    with _explained(where, "switch the IOMMU on"):
        kernel.ioctl(container, uapi.SET_IOMMU, uapi.TYPE1V2_IOMMU)
    with _explained(where, "open the device"):
        name = uapi.device_name(function.address)
        return _kept(kernel.ioctl(group, uapi.GROUP_GET_DEVICE_FD, name), kernel, stack)


def _open_cdev(function: PciFunction, kernel: Kernel, stack: contextlib.ExitStack) -> int:
    where = f"{function.address} ({function.vfio_device})"
    with _explained(where, "open the character device"):
        handle = _kept(kernel.open(f"/dev/vfio/devices/{function.vfio_device}"), kernel, stack)
    with _explained(where, "open /dev/iommu"):
        iommufd = _kept(kernel.open("/dev/iommu"), kernel, stack)
    with _explained(where, "bind the device to iommufd"):
        kernel.ioctl(handle, uapi.DEVICE_BIND_IOMMUFD, uapi.bind_iommufd_request(iommufd))
    with _explained(where, "attach the device to an address space"):
        space = uapi.ioas_alloc_request()
        kernel.ioctl(iommufd, uapi.IOMMUFD_IOAS_ALLOC, space)
        kernel.ioctl(handle, uapi.DEVICE_ATTACH_IOMMUFD_PT, uapi.attach_request(uapi.parse_ioas_alloc(space)))
    return handle


def _kept(handle: int, kernel: Kernel, stack: contextlib.ExitStack) -> int:
    stack.callback(kernel.close, handle)
    return handle


# What each call's error number means: drivers/vfio/{group,container,device_cdev,vfio_main}.c
_MEANINGS = {
    ("open the group", errno.ENOENT): "nothing in the group is bound to a VFIO driver; bind it with gpu_driver",
    ("put the group into a container", errno.EPERM): "another driver owns the DMA of the group; bind all its members",
    ("put the group into a container", errno.EBUSY): "the group has a DMA domain of another user",
    ("switch the IOMMU on", errno.ENODEV): "no IOMMU backend; load vfio_iommu_type1",
    ("switch the IOMMU on", errno.EPERM): "the platform does not isolate interrupts (MSI); this collection never sets "
                                          "allow_unsafe_interrupts",
    ("open the device", errno.ENODEV): "the function is not bound to a VFIO driver; bind it with gpu_driver",
    ("open the device", errno.EBUSY): "the driver says so although nobody has the group open; kernels 7.0 to 7.2 do "
                                      "that after a GPU without coherent memory was opened: reboot, or upgrade",
    ("open the device", errno.EACCES): "the device wants a VF token",
    ("open the device", errno.ETIME): "the GPU did not become ready (C2C link and HBM training) in the driver's time",
    ("bind the device to iommufd", errno.EINVAL): "another process has it open, or the IOMMU is not coherent",
    ("bind the device to iommufd", errno.EPERM): "the platform does not isolate interrupts (MSI), or another driver "
                                                 "owns the DMA",
    ("bind the device to iommufd", errno.ETIME): "the GPU did not become ready (C2C link and HBM training) in the "
                                                 "driver's time",
    ("question the device", errno.EINTR): "a signal ended the wait for the GPU",
    ("question the device", errno.ETIME): "the GPU did not become ready (C2C link and HBM training) in the driver's "
                                          "time",
}


# The calls that only one process at a time gets through
_EXCLUSIVE = ("open the group", "open the character device", "bind the device to iommufd")


@contextlib.contextmanager
def _explained(where: str, action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        if number == errno.EBUSY and action in _EXCLUSIVE:
            raise DeviceInUseError(f"{where} is open in another process.") from error
        meaning = _MEANINGS.get((action, number), "see the kernel log (dmesg)")
        raise PassthroughError(f"{where}: could not {action}: {os.strerror(number)} ({meaning}).") from error
