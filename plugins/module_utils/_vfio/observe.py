# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adapter: looks at an open device. Everything that touches the device is here; nothing is judged."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import Callable, Optional

from .._core.errors import PassthroughError
from .._gpu.child import ChildKilledError, run_in_child
from . import layout
from .device import VfioDevice
from .uapi import BAR_REGIONS, CONFIG_REGION, DEVICE_FLAGS_PCI, REGION_NAMES, RegionInfo, UapiError

_BAR_REGISTER = 0x10
_PATTERN = bytes.fromhex("c3a55a3c0ff0c35a")
_WORD = len(_PATTERN)
_STUCK_BYTE = b"\xff"


@dataclass(frozen=True)
class Finding:
    """The outcome of one try on a region; ``text`` says what was seen."""

    index: int
    check: str
    ok: bool
    text: str


@dataclass(frozen=True)
class Observation:
    """All that was seen of a device. ``bar_registers`` are the six 32-bit registers of config space."""

    regions: tuple[RegionInfo, ...]
    bar_registers: tuple[int, ...]
    findings: tuple[Finding, ...] = ()
    complaints: tuple[str, ...] = ()

    def region(self, index: int) -> Optional[RegionInfo]:
        return next((region for region in self.regions if region.index == index), None)


def observe(device: VfioDevice, probe: str, probe_seconds: float) -> Observation:
    """Region info, BAR registers, and with ``probe`` read or full the memory itself. ``probe_seconds`` for each region.

    Raises PassthroughError where the device is no PCI device.
    """
    info = device.info()
    if not info.flags & DEVICE_FLAGS_PCI:
        raise PassthroughError("VFIO says that this is no PCI device: look at which driver is bound.")
    regions, complaints = [], []
    for index in range(min(info.regions, len(REGION_NAMES))):
        try:
            region = device.region(index)
        except UapiError as error:
            complaints.append(f"{REGION_NAMES[index]}: {error}")
            continue
        if region is not None:
            regions.append(region)
    findings: list[Finding] = []
    if probe != "none":
        for region in regions:
            if layout.is_emulated(region):
                findings += _probe_region(device, region, probe, probe_seconds)
    config = next((region for region in regions if region.index == CONFIG_REGION), None)
    registers = () if config is None else _bar_registers(device, config)
    return Observation(tuple(regions), registers, tuple(findings), tuple(complaints))


def _bar_registers(device: VfioDevice, config: RegionInfo) -> tuple[int, ...]:
    """One aligned 4-byte read each: the kernel's own driver overlays no more than one BAR in a longer read."""
    return tuple(int.from_bytes(device.read(config, _BAR_REGISTER + 4 * index, 4), "little") for index in BAR_REGIONS)


def _probe_region(device: VfioDevice, region: RegionInfo, probe: str, seconds: float) -> list[Finding]:
    """The checks of one emulated region, each in its own child: an access to memory that is not ready is a SIGBUS."""
    checks: list[tuple[str, Callable[[], Optional[str]]]] = [
        ("mapping", lambda: _check_mapping(device, region)),
        ("hole", lambda: _check_hole(device, region)),
    ]
    if probe == "full":
        checks += [
            ("boundary write", lambda: _check_boundaries(device, region)),
            ("straddling read", lambda: _check_straddle(device, region)),
            ("hole write", lambda: _check_hole_write(device, region)),
            ("end of region", lambda: _check_end(device, region)),
        ]
    return [_run_check(region.index, name, check, seconds) for name, check in checks]


def _run_check(index: int, name: str, check: Callable[[], Optional[str]], seconds: float) -> Finding:
    """A check returns what is wrong, or None."""
    what = f"The check {name!r} of {REGION_NAMES[index]}"
    try:
        wrong = run_in_child(check, seconds, what)
    except ChildKilledError as error:
        return Finding(index, name, False, f"{error.message} The memory did not answer.")
    except PassthroughError as error:
        return Finding(index, name, False, error.message)
    except OSError as error:
        return Finding(index, name, False, f"{what} failed: {os.strerror(error.errno or 0)}.")
    return Finding(index, name, wrong is None, wrong or f"{name}: as expected")


def _check_mapping(device: VfioDevice, region: RegionInfo) -> Optional[str]:
    """The first and the last bytes of each mappable area are the same through a mapping and through read(2)."""
    for area in region.sparse or ():
        for offset in (area.offset, area.offset + area.size - _WORD):
            start = offset // mmap.PAGESIZE * mmap.PAGESIZE
            window = device.map(region, start, mmap.PAGESIZE)
            try:
                mapped = bytes(window[offset - start:offset - start + _WORD])
            finally:
                window.close()
            read = device.read(region, offset, _WORD)
            if mapped != read:
                return f"at {offset:#x} the mapping shows {mapped.hex()} and read(2) {read.hex()}"
    return None


def _check_hole(device: VfioDevice, region: RegionInfo) -> Optional[str]:
    """The bytes between the actual and the reported size read as 0xFF."""
    if not _has_hole(region):
        return None
    for offset in (_hole_start(region), region.size - _WORD):
        data = device.read(region, offset, _WORD)
        if data != _STUCK_BYTE * _WORD:
            return f"the hole at {offset:#x} reads {data.hex()} and not all ff"
    return None


def _check_boundaries(device: VfioDevice, region: RegionInfo) -> Optional[str]:
    """Writes through a mapping at both ends of the memory, reads it back through read(2), and restores the bytes."""
    for offset in (0, layout.actual_size(region) - _WORD):
        before = device.read(region, offset, _WORD)
        start = offset // mmap.PAGESIZE * mmap.PAGESIZE
        window = device.map(region, start, mmap.PAGESIZE)
        try:
            window[offset - start:offset - start + _WORD] = _PATTERN
            seen = device.read(region, offset, _WORD)
            window[offset - start:offset - start + _WORD] = before
        finally:
            window.close()
        if seen != _PATTERN:
            return f"{_PATTERN.hex()} written through the mapping at {offset:#x} reads back as {seen.hex()}"
    return None


def _check_straddle(device: VfioDevice, region: RegionInfo) -> Optional[str]:
    """A read across the end of the memory gives its data, then 0xFF, and counts both."""
    actual = layout.actual_size(region)
    if not _has_hole(region) or _hole_start(region) != actual:
        return None
    data = device.read(region, actual - _WORD, 2 * _WORD)
    if len(data) != 2 * _WORD or data[_WORD:] != _STUCK_BYTE * _WORD:
        return f"a read of {2 * _WORD} bytes across the end of the memory gave {len(data)} bytes, {data.hex()}"
    return None


def _check_hole_write(device: VfioDevice, region: RegionInfo) -> Optional[str]:
    """A write into the hole is dropped and still counts."""
    if not _has_hole(region):
        return None
    offset = _hole_start(region)
    count = device.write(region, offset, _PATTERN)
    if count != _WORD:
        return f"a write of {_WORD} bytes into the hole returned {count}"
    data = device.read(region, offset, _WORD)
    return None if data == _STUCK_BYTE * _WORD else f"a write into the hole was kept: it reads {data.hex()}"


def _check_end(device: VfioDevice, region: RegionInfo) -> Optional[str]:
    """Nothing can be read at the reported size."""
    try:
        data = device.read(region, region.size, _WORD)
    except OSError:
        return None
    return f"a read at the end of the region gave {len(data)} bytes and no error" if data else None


def _hole_start(region: RegionInfo) -> int:
    """First byte that certainly does not exist: of memory that is no multiple of a page only the full pages can be
    mapped, so its last bytes lie behind the sparse area."""
    actual = layout.actual_size(region)
    return actual if actual % layout.MIB == 0 else (actual // mmap.PAGESIZE + 1) * mmap.PAGESIZE


def _has_hole(region: RegionInfo) -> bool:
    return _hole_start(region) + _WORD <= region.size
