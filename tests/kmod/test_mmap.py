# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""mmap(2) of the emulated regions. The GPU is ready."""

from __future__ import annotations

import errno
import mmap
import random
import resource
import signal
import struct
import unittest

import vfio_client as vfio
from contract import contract, ours_only
from hostside import (
    ARM64,
    COMMAND_MEMORY,
    EXPECTED,
    GIB,
    KERNEL,
    MIB,
    PAGE,
    DeviceTest,
    capability,
    in_child,
    kernel_mappings,
)

PMD = 2 * MIB
PCI_EXPRESS = 0x10
# The first kernel that maps such memory by 2 MiB and 1 GiB.
HUGE_MAPPINGS = (6, 12)


class Mmap(DeviceTest):
    """What can be mapped, and what the mapping shows."""

    @contract("behaviour-mmap", "review-3")
    def test_whole_actual_size_maps_and_its_ends_work(self) -> None:
        """All of the memory."""
        for index, expected in EXPECTED.items():
            with self.device.map(index, 0, expected.mappable) as mapping:
                for offset in (0, expected.mappable - 64):
                    data = random.randbytes(64)
                    mapping.write(offset, data)
                    self.assertEqual(self.device.read(index, offset, 64), data)

    @contract("behaviour-mmap")
    def test_mapping_sees_what_was_written(self) -> None:
        """pwrite, then the mapping."""
        for index in EXPECTED:
            data = random.randbytes(3 * PAGE)
            self.device.write(index, 5 * MIB, data)
            with self.device.map(index, 5 * MIB, 3 * PAGE) as mapping:
                self.assertEqual(mapping.read(0, 3 * PAGE), data)

    @contract("behaviour-mmap")
    def test_every_page_is_the_right_one(self) -> None:
        """Whether it came by a fault of its own or with its neighbours: aligned and misaligned mappings."""
        length = 3 * PMD
        for index in EXPECTED:
            for page in range(0, length, PAGE):
                self.device.write(index, page, struct.pack("<Q", page))
            for shift in (0, PAGE):
                with self.device.map(index, shift, length - shift, alignment=PMD) as mapping:
                    for page in random.sample(range(0, length - shift, PAGE), 200):
                        self.assertEqual(mapping.read(page, 8), struct.pack("<Q", page + shift))

    @contract("behaviour-mmap", "review-3")
    def test_more_than_the_actual_size_does_not_map(self) -> None:
        """Actual + a page, the reported size, the hole alone."""
        for index, expected in EXPECTED.items():
            self.assert_errno(errno.EINVAL, self.device.map, index, 0, expected.mappable + PAGE)
            self.assert_errno(errno.EINVAL, self.device.map, index, expected.mappable, PAGE)
            if expected.reported != expected.actual:
                self.assert_errno(errno.EINVAL, self.device.map, index, 0, expected.reported)

    @contract("behaviour-mmap")
    def test_an_end_that_wraps_does_not_map(self) -> None:
        """EINVAL within a region's 40 bits; what wraps in 64 bits is EOVERFLOW, and mm says so before any driver."""
        for index in EXPECTED:
            self.assert_errno(errno.EINVAL, self.device.map, index, (1 << 40) - PAGE, 2 * PAGE)
        self.assert_errno(errno.EOVERFLOW, vfio.Mapping, self.device.fd, -PAGE, 2 * PAGE)

    @contract("behaviour-mmap")
    def test_read_only_mapping(self) -> None:
        """Shows the memory and takes no write."""
        for index in EXPECTED:
            self.device.write(index, 0, b"look")
            with self.device.map(index, 0, PMD, protection=mmap.PROT_READ) as mapping:
                self.assertEqual(mapping.read(0, 4), b"look")
                self.assertEqual(in_child(lambda m=mapping: default_and(signal.SIGSEGV, m.write, 0, b"x")),
                                 -signal.SIGSEGV)
            self.assertEqual(self.device.read(index, 0, 4), b"look")

    @contract("behaviour-mmap")
    def test_part_of_a_mapping_can_go(self) -> None:
        """A hole in the middle: the rest still shows its own bytes."""
        for index in EXPECTED:
            for page in range(4):
                self.device.write(index, page * PAGE, bytes([page]) * 16)
            with self.device.map(index, 0, 4 * PAGE) as mapping:
                vfio._libc.munmap(mapping.address + PAGE, PAGE)
                for page in (0, 2, 3):
                    self.assertEqual(mapping.read(page * PAGE, 16), bytes([page]) * 16)

    @contract("behaviour-mmap")
    def test_dma_of_a_mapping(self) -> None:
        """What QEMU does: the IOMMU maps the mapping's pages, also before their first touch."""
        for index in EXPECTED:
            with self.device.map(index, 4 * MIB, PMD) as mapping:
                request = struct.pack("IIQQQ", 32, 3, mapping.address, 1 << 32, PMD)
                vfio.fcntl.ioctl(self.device.container, vfio.IOMMU_MAP_DMA, request)
                undo = struct.pack("IIQQ", 24, 0, 1 << 32, PMD)
                vfio.fcntl.ioctl(self.device.container, vfio.IOMMU_UNMAP_DMA, undo)


def default_and(number: int, call: object, *arguments: object) -> None:
    """Call with the signal's default action in force."""
    signal.signal(number, signal.SIG_DFL)
    call(*arguments)  # type: ignore[operator]


def faults_so_far() -> int:
    """Return this thread's page faults. One that was tried again, as the first after a reset is, counts as major."""
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_minflt + usage.ru_majflt


class Faults(DeviceTest):
    """How a mapping is filled."""

    def faults(self, index: int, length: int, alignment: int, step: int, shift: int = 0) -> int:
        """Return the faults of the first touches of a fresh mapping, one touch in each ``step`` bytes.

        The least of three, because the process has faults of its own, too: automatic NUMA balancing makes some.
        """
        counts = []
        for _ in range(3):
            with self.device.map(index, shift, length, alignment=alignment) as mapping:
                self.assertEqual(mapping.address % alignment, 0)
                before = faults_so_far()
                mapping.touch(step)
                counts.append(faults_so_far() - before)
        return min(counts)

    @contract("behaviour-fault")
    def test_aligned_mapping_faults_by_2_mib(self) -> None:
        """64 MiB take 32 faults; a touch in each 64 KiB makes no more."""
        for index in EXPECTED:
            faults = self.faults(index, 64 * MIB, PMD, step=64 * 1024)
            self.assertEqual(faults, 64 * MIB // PMD, f"region {index}: {faults} faults for 64 MiB")

    @contract("behaviour-fault")
    @ours_only("the kernel's own driver takes a fault for each page of such a mapping")
    def test_misaligned_mapping_faults_by_2_mib_as_well(self) -> None:
        """Memory at an odd page of its 2 MiB cannot be mapped at once at an aligned address: its pages come alike."""
        for index in EXPECTED:
            self.assertEqual(self.faults(index, 2 * PMD, PMD, step=2 * PAGE, shift=PAGE), 2)

    @contract("match-touch", "behaviour-fault")
    def test_first_gib_takes_512_faults(self) -> None:
        """Or one, where architecture and kernel map 1 GiB at once and the memory is aligned for that."""
        for index, expected in EXPECTED.items():
            if expected.mappable < GIB:
                continue
            at_once = not ARM64 and KERNEL >= HUGE_MAPPINGS and not expected.base % GIB
            self.assertEqual(self.faults(index, GIB, GIB, step=PMD), 1 if at_once else GIB // PMD)

    @contract("behaviour-fault")
    def test_nothing_is_mapped_before_the_first_touch(self) -> None:
        """mmap itself maps no page, and makes no kernel mapping."""
        for index, expected in EXPECTED.items():
            with self.device.map(index, 0, expected.mappable) as mapping, open("/proc/self/smaps") as smaps:
                lines = smaps.read().split(f"{mapping.address:x}-", 1)[1].splitlines()
                self.assertEqual(next(line.split()[1] for line in lines if line.startswith("Rss:")), "0")
        self.assertEqual(kernel_mappings(), [])


class Survival(DeviceTest):
    """Mappings that outlive what happens to the GPU."""

    @contract("match-mappings", "mainline-10")
    def test_survives_reset(self) -> None:
        """VFIO_DEVICE_RESET takes the pages away; the next access brings them back."""
        for index in EXPECTED:
            with self.device.map(index, 0, PMD) as mapping:
                mapping.write(0, b"before reset")
                self.device.reset()
                self.assertEqual(mapping.read(0, 12), b"before reset")

    @contract("match-mappings")
    def test_survives_function_level_reset(self) -> None:
        """As a guest does it: through the PCIe capability."""
        express = capability(self.device, PCI_EXPRESS)
        for index in EXPECTED:
            with self.device.map(index, 0, PMD) as mapping:
                mapping.write(0, b"before FLR")
                control = struct.unpack("<H", self.device.config(express + 8, 2))[0]
                self.device.write(vfio.CONFIG_REGION, express + 8, struct.pack("<H", control | 0x8000))
                self.assertEqual(mapping.read(0, 10), b"before FLR")

    @contract("match-mappings")
    def test_decode_off_is_sigbus_and_on_again_works(self) -> None:
        """As for every BAR of vfio-pci-core."""
        for index in EXPECTED:
            with self.device.map(index, 0, PMD) as mapping:
                mapping.write(0, b"decode")
                command = self.command()
                self.set_command(command & ~COMMAND_MEMORY)
                self.assertEqual(in_child(lambda m=mapping: m.read(0, 6)), -signal.SIGBUS)
                self.set_command(command | COMMAND_MEMORY)
                self.assertEqual(mapping.read(0, 6), b"decode")


if __name__ == "__main__":
    unittest.main(verbosity=2)
