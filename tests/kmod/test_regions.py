# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""What VFIO says of the regions, and the ioctls other than reset."""

from __future__ import annotations

import errno
import os
import struct
import unittest
from pathlib import Path

import vfio_client as vfio
from contract import contract, ours_only
from hostside import DEVICE, EXPECTED, KERNEL, DeviceTest

FEATURE_DMA_BUF = 11


class RegionInfo(DeviceTest):
    """VFIO_DEVICE_GET_REGION_INFO."""

    @contract("behaviour-region-info", "review-1")
    def test_reported_size_and_one_sparse_area_of_the_actual_size(self) -> None:
        """How userspace learns the actual size."""
        for index, expected in EXPECTED.items():
            region = self.device.region(index)
            self.assertEqual(region.size, expected.reported)
            self.assertEqual(region.flags, vfio.FLAG_READ | vfio.FLAG_WRITE | vfio.FLAG_MMAP | vfio.FLAG_CAPS)
            self.assertEqual(region.areas, (vfio.Area(0, expected.mappable),))

    @contract("behaviour-region-info")
    def test_two_call_protocol(self) -> None:
        """A short argsz returns the size that is needed and no capability."""
        for index in EXPECTED:
            argsz, flags, _index, cap = struct.unpack_from("IIII", self.device.raw_region_info(index, vfio.INFO_SIZE))
            self.assertEqual((argsz, cap), (vfio.INFO_SIZE + 32, 0))
            self.assertTrue(flags & vfio.FLAG_CAPS)
            argsz, _flags, _index, cap = struct.unpack_from("IIII", self.device.raw_region_info(index, argsz))
            self.assertEqual((argsz, cap), (vfio.INFO_SIZE + 32, vfio.INFO_SIZE))
            self.assert_errno(errno.EINVAL, self.device.raw_region_info, index, vfio.INFO_SIZE - 1)

    @contract("behaviour-region-info")
    def test_other_regions_are_those_of_the_function(self) -> None:
        """BAR0, config and every index that is not emulated."""
        resources = Path(DEVICE + "/resource").read_text(encoding="ascii").splitlines()
        for index in set(range(6)) - set(EXPECTED):
            start, end = (int(word, 16) for word in resources[index].split()[:2])
            self.assertEqual(self.device.region(index).size, end - start + 1 if end else 0)
            self.assertIsNone(self.device.region(index).areas)
        self.assertEqual(self.device.region(vfio.CONFIG_REGION).size, 4096)

    @contract("review-2")
    def test_no_virtual_machine_is_needed(self) -> None:
        """This very process has the device open and works with it, and has nothing of KVM open."""
        index = max(EXPECTED)
        self.assertEqual(self.device.write(index, 0, b"no VM"), 5)
        self.assertEqual(self.device.read(index, 0, 5), b"no VM")
        files = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                 if os.path.lexists(f"/proc/self/fd/{fd}")]
        self.assertIn(True, ["vfio" in name for name in files])
        self.assertFalse([name for name in files if "kvm" in name])


class Requests(DeviceTest):
    """Ioctls that concern the emulated regions."""

    @contract("behaviour-ioeventfd")
    def test_ioeventfd_is_refused(self) -> None:
        """VFIO_DEVICE_IOEVENTFD is ENOTTY."""
        request = struct.pack("IIQQiI", 32, 4, self.device.region(min(EXPECTED)).offset, 0, -1, 0)
        self.assert_errno(errno.ENOTTY, vfio.fcntl.ioctl, self.device.fd, vfio.DEVICE_IOEVENTFD, request)

    @contract("behaviour-feature")
    def test_features_of_the_core_can_be_probed(self) -> None:
        """Low power entry and exit are there; a number that nobody knows is ENOTTY."""
        for number in (vfio.FEATURE_LOW_POWER_ENTRY, vfio.FEATURE_LOW_POWER_EXIT):
            self.device.feature(number, vfio.FEATURE_PROBE | vfio.FEATURE_SET)
        for flag in (vfio.FEATURE_GET, vfio.FEATURE_SET):
            self.assert_errno(errno.ENOTTY, self.device.feature, 0x7FFF, vfio.FEATURE_PROBE | flag)

    @contract("behaviour-feature")
    @ours_only("the kernel's own driver exports its memory as dma-buf")
    def test_no_dma_buf_of_an_emulated_region(self) -> None:
        """The core would export what is behind the physical BAR of that index."""
        if KERNEL < (6, 19):
            self.skipTest("this kernel has no dma-buf export of VFIO regions")
        for index, expected in EXPECTED.items():
            request = struct.pack("IIIIQQ", index, os.O_RDWR | os.O_CLOEXEC, 0, 1, 0, expected.mappable)
            self.assert_errno(errno.EOPNOTSUPP, self.device.feature, FEATURE_DMA_BUF, vfio.FEATURE_GET, request)


if __name__ == "__main__":
    unittest.main(verbosity=2)
