# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The device's character device and iommufd: what the group API's tests do not have."""

from __future__ import annotations

import ctypes
import errno
import mmap
import unittest

import cdev_client
from hostside import ADDRESS, EXPECTED, MIB, DeviceTest

LENGTH = 2 * MIB
IOVA = 1 << 32


class Iommufd(DeviceTest):
    """One device, opened by its file."""

    device: cdev_client.Device

    def test_no_answer_before_an_iommufd_is_bound(self) -> None:
        """Which is what opens the device."""
        self.device.close()
        self.assertEqual(cdev_client.unbound_info_errno(ADDRESS), errno.EINVAL)

    def test_a_second_opener_is_refused(self) -> None:
        """EINVAL from BIND_IOMMUFD; the first one goes on."""
        self.assert_errno(errno.EINVAL, cdev_client.Device, ADDRESS)
        self.assertEqual(len(self.device.read(max(EXPECTED), 0, 64)), 64)

    def test_user_memory_is_mapped_for_the_device(self) -> None:
        """And unmapped."""
        memory = mmap.mmap(-1, LENGTH)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self.device.map_dma(address, LENGTH, IOVA)
        self.device.unmap_dma(LENGTH, IOVA)

    def test_gpu_memory_is_not(self) -> None:
        """IOAS_MAP takes user memory by its pages, and a mapping of the GPU has none: EFAULT, as of every VFIO driver.

        A virtual machine whose monitor uses iommufd so has no peer access to the memory; one that uses the group has.
        """
        for index in EXPECTED:
            with self.device.map(index, 0, LENGTH) as mapping:
                mapping.write(0, b"there")
                self.assert_errno(errno.EFAULT, self.device.map_dma, mapping.address, LENGTH, IOVA)
                self.assertEqual(mapping.read(0, 5), b"there")

    def test_the_memory_works_without_an_address_space(self) -> None:
        """Detached, destroyed; read and write need none."""
        index = max(EXPECTED)
        self.device.detach()
        self.device.destroy_ioas()
        self.device.reset()
        self.device.write(index, 0, b"no ioas")
        self.assertEqual(self.device.read(index, 0, 7), b"no ioas")

    def test_attach_again(self) -> None:
        """Detach and attach ten times."""
        for _ in range(10):
            self.device.detach()
            self.device.attach()
        self.assertEqual(len(self.device.read(max(EXPECTED), 0, 64)), 64)


if __name__ == "__main__":
    unittest.main(verbosity=2)
