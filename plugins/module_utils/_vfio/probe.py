# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adapter: tries the memory behind an emulated region, and the BAR registers. Each check runs in a child process: a
touch of memory that does not answer is a SIGBUS. What a check writes is restored, also after the check has died."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Callable, Optional

from .._core.errors import PassthroughError
from .._gpu.child import ChildKilledError, run_in_child
from . import layout
from .device import VfioDevice
from .uapi import BAR_REGIONS, REGION_NAMES, RegionInfo

BAR_REGISTER = 0x10
_PATTERN = bytes.fromhex("c3a55a3c0ff0c35a")
_WORD = len(_PATTERN)
_STUCK_BYTE = b"\xff"
# PCI Local Bus Specification 3.0, 6.2.5.1: the bits of a BAR that are no address
_IO_BAR, _WIDE_BAR, _IO_BITS, _MEMORY_BITS = 1, 4, 0x3, 0xF

# A check returns what is wrong, or None.
Check = Callable[[], Optional[str]]


@dataclass(frozen=True)
class Finding:
    """The outcome of one try on a region; ``text`` says what was seen."""

    index: int
    check: str
    ok: bool
    text: str


def probe_region(device: VfioDevice, region: RegionInfo, writes: bool, seconds: float) -> list[Finding]:
    """The checks of one emulated region; those that write only with ``writes``. ``seconds`` for each."""
    actual = layout.actual_size(region)
    if actual < mmap.PAGESIZE or actual % mmap.PAGESIZE:
        return [Finding(region.index, "mapping", False, f"its area has {actual} bytes, which are no whole pages of "
                                                        f"{mmap.PAGESIZE} and cannot be mapped")]
    findings = [_run(region.index, "mapping", "the ends of the memory are the same through a mapping and by read(2)",
                     lambda: _check_mapping(device, region), seconds)]
    hole = _has_hole(region)
    if hole:
        findings.append(_run(region.index, "hole", "the ends of the hole read as ff",
                             lambda: _check_hole(device, region), seconds))
    if not writes:
        return findings
    findings.append(_boundary_writes(device, region, seconds))
    if hole and _hole_start(region) == actual:
        findings.append(_run(region.index, "straddling read", "a read over the end of the memory is data, then ff",
                             lambda: _check_straddle(device, region), seconds))
    if hole:
        findings += [
            _run(region.index, "hole write", "a write into the hole counts and is dropped",
                 lambda: _check_hole_write(device, region), seconds),
            _run(region.index, "hole mapping", "the hole cannot be mapped",
                 lambda: _check_hole_mapping(device, region), seconds)]
    findings.append(_run(region.index, "end of region", "nothing can be read after the reported size",
                         lambda: _check_end(device, region), seconds))
    return findings


def check_bar_sizes(device: VfioDevice, config: RegionInfo, regions: Iterable[RegionInfo],
                    seconds: float) -> list[Finding]:
    """Sizes every BAR as a guest does, by writing ones to its registers, and restores them."""
    def check_of(region: RegionInfo) -> Check:
        return lambda: _check_bar_size(device, config, region)

    return [_run(region.index, "BAR size", f"its BAR registers say {region.size} bytes", check_of(region), seconds)
            for region in regions if region.index in BAR_REGIONS and region.size]


def _run(index: int, name: str, good: str, check: Check, seconds: float) -> Finding:
    what = f"The check {name!r} of {REGION_NAMES[index]}"
    try:
        wrong = run_in_child(check, seconds, what)
    except ChildKilledError as error:
        return Finding(index, name, False, f"{error.message} The memory did not answer.")
    except PassthroughError as error:
        return Finding(index, name, False, error.message)
    except OSError as error:
        return Finding(index, name, False, f"{what} failed: {os.strerror(error.errno or 0)}.")
    return Finding(index, name, wrong is None, f"tried in a child process: {wrong or good}")


def _check_mapping(device: VfioDevice, region: RegionInfo) -> Optional[str]:
    for offset in _ends(region):
        start, window = _window(device, region, offset)
        try:
            mapped = bytes(window[offset - start:offset - start + _WORD])
        finally:
            window.close()
        read = device.read(region, offset, _WORD)
        if mapped != read:
            return f"at {offset:#x} the mapping shows {mapped.hex()} and read(2) {read.hex()}"
    return None


def _check_hole(device: VfioDevice, region: RegionInfo) -> Optional[str]:
    for offset in (_hole_start(region), region.size - _WORD):
        data = device.read(region, offset, _WORD)
        if data != _STUCK_BYTE * _WORD:
            return f"the hole at {offset:#x} reads {data.hex()} and not all ff"
    return None


def _boundary_writes(device: VfioDevice, region: RegionInfo, seconds: float) -> Finding:
    """Writes at both ends. The bytes are known out here, so that a check that dies between leaves none behind."""
    name = "boundary write"
    try:
        before = [device.read(region, offset, _WORD) for offset in _ends(region)]
        finding = _run(region.index, name, "what is written at both ends through a mapping is read by read(2), and was "
                       "restored", lambda: _check_boundaries(device, region, before), seconds)
        for offset, data in zip(_ends(region), before):
            if device.read(region, offset, _WORD) != data:
                device.write(region, offset, data)
                if device.read(region, offset, _WORD) != data:
                    return Finding(region.index, name, False, f"{finding.text} The bytes {data.hex()} at {offset:#x} "
                                                              "could not be restored.")
    except OSError as error:
        return Finding(region.index, name, False, f"the ends of the memory could not be read or restored: "
                                                  f"{os.strerror(error.errno or 0)}")
    return finding


def _check_boundaries(device: VfioDevice, region: RegionInfo, before: list[bytes]) -> Optional[str]:
    for offset, data in zip(_ends(region), before):
        start, window = _window(device, region, offset)
        place = slice(offset - start, offset - start + _WORD)
        try:
            window[place] = _PATTERN
            seen = device.read(region, offset, _WORD)
        finally:
            window[place] = data
            window.close()
        if seen != _PATTERN:
            return f"{_PATTERN.hex()} written through the mapping at {offset:#x} reads back as {seen.hex()}"
    return None


def _check_straddle(device: VfioDevice, region: RegionInfo) -> Optional[str]:
    data = device.read(region, layout.actual_size(region) - _WORD, 2 * _WORD)
    if len(data) != 2 * _WORD or data[_WORD:] != _STUCK_BYTE * _WORD:
        return f"a read of {2 * _WORD} bytes across the end of the memory gave {len(data)} bytes, {data.hex()}"
    return None


def _check_hole_write(device: VfioDevice, region: RegionInfo) -> Optional[str]:
    offset = _hole_start(region)
    count = device.write(region, offset, _PATTERN)
    if count != _WORD:
        return f"a write of {_WORD} bytes into the hole returned {count}"
    data = device.read(region, offset, _WORD)
    return None if data == _STUCK_BYTE * _WORD else f"a write into the hole was kept: it reads {data.hex()}"


def _check_hole_mapping(device: VfioDevice, region: RegionInfo) -> Optional[str]:
    """Tried and never touched: what such a mapping would show is not this GPU's memory."""
    offset = -(-_hole_start(region) // mmap.PAGESIZE) * mmap.PAGESIZE
    try:
        device.map(region, offset, mmap.PAGESIZE).close()
    except OSError:
        return None
    return f"the hole at {offset:#x} can be mapped, so that who maps it gets memory that is not the GPU's"


def _check_end(device: VfioDevice, region: RegionInfo) -> Optional[str]:
    try:
        data = device.read(region, region.size, _WORD)
    except OSError:
        return None
    return f"a read at the end of the region gave {len(data)} bytes and no error" if data else None


def _check_bar_size(device: VfioDevice, config: RegionInfo, region: RegionInfo) -> Optional[str]:
    """VFIO keeps these registers itself: the function never sees the write."""
    place = BAR_REGISTER + 4 * region.index
    low = int.from_bytes(device.read(config, place, 4), "little")
    wide = not low & _IO_BAR and bool(low & _WIDE_BAR)
    places = [place, place + 4] if wide else [place]
    before = [device.read(config, where, 4) for where in places]
    try:
        for where in places:
            device.write(config, where, _STUCK_BYTE * 4)
        answer = int.from_bytes(b"".join(device.read(config, where, 4) for where in places), "little")
    finally:
        for where, data in zip(places, before):
            device.write(config, where, data)
    address_bits = answer & ~(_IO_BITS if low & _IO_BAR else _MEMORY_BITS)
    size = address_bits & -address_bits
    return None if size == region.size else f"its BAR registers say {size} bytes and region info {region.size}"


def _ends(region: RegionInfo) -> tuple[int, int]:
    """Offsets of the first and of the last word of the memory that can be mapped."""
    return 0, layout.actual_size(region) - _WORD


def _window(device: VfioDevice, region: RegionInfo, offset: int) -> tuple[int, Any]:
    """Start and mapping of the page that holds ``offset``; the caller closes it."""
    start = offset // mmap.PAGESIZE * mmap.PAGESIZE
    return start, device.map(region, start, mmap.PAGESIZE)


def _hole_start(region: RegionInfo) -> int:
    """First byte that certainly does not exist: of memory that is no multiple of a page only the full pages can be
    mapped, so its last bytes lie behind the sparse area."""
    actual = layout.actual_size(region)
    return actual if actual % layout.MIB == 0 else (actual // mmap.PAGESIZE + 1) * mmap.PAGESIZE


def _has_hole(region: RegionInfo) -> bool:
    return _hole_start(region) + _WORD <= region.size
