# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where GPU memory must appear among the regions, from its size alone: the contract between firmware, driver and guest.

Source: nvgrace_gpu_init_nvdev_struct() of Linux 6.9 to 7.3; docs/kernel-module.md has the same table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

from .._core.errors import PassthroughError
from .._gpu import sysfs
from .driver import PLAIN_DRIVER
from .uapi import REGION_MMAP, RegionInfo

GIB = 1 << 30
MIB = 1 << 20

USEMEM_INDEX = 4
RESMEM_INDEX = 2

# Memory that a GPU with the MIG hardware bug keeps in its own uncached region, and the alignment that GPU firmware,
# host driver and guest driver agree on.
_RESMEM_SIZE = GIB
_MEMBLK_SIZE = 512 * MIB

_NVIDIA_VENDOR_ID = 0x10DE
_MIG_DVSEC = 3
_MIG_FIXED_OFFSET = 0xA


class LayoutError(PassthroughError):
    """A memory size that the driver itself refuses."""


@dataclass(frozen=True)
class EmulatedRegion:
    """A region made of GPU memory. ``reported`` is the BAR's size and a power of two, ``actual`` what exists; bytes."""

    index: int
    role: str
    reported: int
    actual: int


def roundup_pow2(size: int) -> int:
    """The smallest power of two that is not below ``size`` (bytes, above 0)."""
    return 1 << (size - 1).bit_length()


def has_mig_bug(config: bytes) -> Optional[bool]:
    """Whether the GPU needs a separate RESMEM region, from its 4096-byte config space; None where that was not
    readable. A GPU without the capability (GH200) has the bug."""
    if len(config) < 4096:
        return None
    offset = sysfs.find_dvsec(config, _NVIDIA_VENDOR_ID, _MIG_DVSEC)
    return True if offset is None else not config[offset + _MIG_FIXED_OFFSET] & 1


def mainline(memory: int, mig_bug: bool) -> tuple[EmulatedRegion, ...]:
    """The layout since Linux 6.9. Raises LayoutError for a size that the driver refuses.

    USEMEM's BAR is sized before its round-down: 65 GiB + 256 MiB of memory give 64 GiB in a BAR of 128 GiB.
    """
    if not mig_bug:
        return (EmulatedRegion(USEMEM_INDEX, "usemem", roundup_pow2(memory), memory),)
    if memory < _RESMEM_SIZE:
        raise LayoutError(f"{memory} bytes of GPU memory are too few: this GPU reserves {_RESMEM_SIZE} of them.")
    before = memory - _RESMEM_SIZE
    usemem = before // _MEMBLK_SIZE * _MEMBLK_SIZE
    if usemem == 0:
        raise LayoutError(f"{memory} bytes of GPU memory leave no {_MEMBLK_SIZE} bytes beside the reserved part.")
    resmem = memory - usemem
    return (EmulatedRegion(RESMEM_INDEX, "resmem", roundup_pow2(resmem), resmem),
            EmulatedRegion(USEMEM_INDEX, "usemem", roundup_pow2(before), usemem))


def bar2(memory: int) -> tuple[EmulatedRegion, ...]:
    """All memory in region 2: the layout of the patches before the merge, a mode of this collection's driver."""
    return (EmulatedRegion(RESMEM_INDEX, "usemem", roundup_pow2(memory), memory),)


def expected_regions(layout: str, memory: int, mig_bug: bool) -> tuple[EmulatedRegion, ...]:
    """The emulated regions of a layout that has some."""
    return bar2(memory) if layout == "bar2" else mainline(memory, mig_bug)


def recognise(regions: Iterable[RegionInfo], driver: Optional[str]) -> str:
    """mainline, bar2, fallback (a variant driver that shows no coherent memory) or plain (vfio-pci, which knows of no
    coherent memory, whatever sparse areas it shows)."""
    if driver == PLAIN_DRIVER:
        return "plain"
    emulated = {region.index for region in regions if is_emulated(region)}
    if USEMEM_INDEX in emulated:
        return "mainline"
    if RESMEM_INDEX in emulated:
        return "bar2"
    return "fallback"


def is_emulated(region: RegionInfo) -> bool:
    """Coherent memory is told from a physical BAR by its single sparse area at the start of the region; vfio-pci's own
    sparse areas leave out an MSI-X table and never end at a hole behind the first area."""
    return (region.index in (RESMEM_INDEX, USEMEM_INDEX) and bool(region.flags & REGION_MMAP)
            and region.sparse is not None and len(region.sparse) == 1 and region.sparse[0].offset == 0)


def actual_size(region: RegionInfo) -> int:
    """Bytes that exist behind an emulated region, as its sparse areas say."""
    return sum(area.size for area in region.sparse or ())
