# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adapter: looks at an open device. Everything that touches the device is here and in probe.py; nothing is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from .._core.errors import PassthroughError
from . import layout
from .device import VfioDevice
from .probe import BAR_REGISTER, Finding, check_bar_sizes, probe_region
from .uapi import BAR_REGIONS, CONFIG_REGION, DEVICE_FLAGS_PCI, REGION_NAMES, RegionInfo, UapiError

_REGISTER = 4


@dataclass(frozen=True)
class Complaint:
    """An answer about a region that cannot be true; ``text`` is a clause."""

    index: int
    text: str


@dataclass(frozen=True)
class Observation:
    """All that was seen of a device. ``bar_registers`` are the six 32-bit registers of config space, each read by
    itself; ``wide_registers`` the same from one read."""

    regions: tuple[RegionInfo, ...]
    bar_registers: tuple[int, ...] = ()
    wide_registers: tuple[int, ...] = ()
    findings: tuple[Finding, ...] = ()
    complaints: tuple[Complaint, ...] = ()

    def region(self, index: int) -> Optional[RegionInfo]:
        return next((region for region in self.regions if region.index == index), None)

    @property
    def wide_reads_whole(self) -> bool:
        """Whether one read over all BAR registers shows what single reads show."""
        return self.bar_registers == self.wide_registers


def observe(device: VfioDevice, probe: str, probe_seconds: float, memory: bool = True) -> Observation:
    """Region info, BAR registers, and with ``probe`` read or full the memory itself. ``probe_seconds`` for each check;
    ``memory`` False: the driver shows none, so whatever looks like it is not touched.

    Raises PassthroughError where the device is no PCI device, OSError where the kernel refuses a question.
    """
    info = device.info()
    if not info.flags & DEVICE_FLAGS_PCI:
        raise PassthroughError("VFIO says that this is no PCI device: look at which driver is bound.")
    regions, complaints = _regions(device, min(info.regions, len(REGION_NAMES)))
    findings: list[Finding] = []
    if memory and probe != "none":
        for region in regions:
            if layout.is_emulated(region):
                findings += probe_region(device, region, probe == "full", probe_seconds)
    config = next((region for region in regions if region.index == CONFIG_REGION), None)
    if config is None:
        return Observation(regions, findings=tuple(findings), complaints=complaints)
    single = [device.read(config, BAR_REGISTER + _REGISTER * index, _REGISTER) for index in BAR_REGIONS]
    wide = device.read(config, BAR_REGISTER, _REGISTER * len(BAR_REGIONS))
    short = [len(data) for data in single if len(data) != _REGISTER]
    if short:
        complaints += (Complaint(CONFIG_REGION, f"a read of {_REGISTER} bytes of config space gave {short[0]}"),)
        return Observation(regions, findings=tuple(findings), complaints=complaints)
    if probe == "full":
        findings += check_bar_sizes(device, config, regions, probe_seconds)
    return Observation(regions, _words(b"".join(single)), _words(wide), tuple(findings), complaints)


def _regions(device: VfioDevice, count: int) -> tuple[tuple[RegionInfo, ...], tuple[Complaint, ...]]:
    regions, complaints = [], []
    for index in range(count):
        try:
            region = device.region(index)
        except UapiError as error:
            complaints.append(Complaint(index, error.message))
            continue
        if region is not None:
            regions.append(region)
    return tuple(regions), tuple(complaints)


def _words(data: bytes) -> tuple[int, ...]:
    return tuple(int.from_bytes(data[start:start + _REGISTER], "little") for start in range(0, len(data), _REGISTER))
