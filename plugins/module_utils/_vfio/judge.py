# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure: what was seen of a device against what had to be seen. Every verdict comes with its reasons as sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from .._gpu.model import Bar
from .._gpu.products import Product
from . import layout as layouts
from .observe import Observation
from .uapi import (
    BAR_REGIONS,
    CONFIG_REGION,
    REGION_CAPS,
    REGION_MMAP,
    REGION_NAMES,
    REGION_READ,
    REGION_WRITE,
    ROM_REGION,
    RegionInfo,
)

OK, FAIL, UNCHECKED = "ok", "fail", "unchecked"

_EMULATED_FLAGS = REGION_READ | REGION_WRITE | REGION_MMAP | REGION_CAPS
# PCI Local Bus Specification 3.0, 6.2.5.1: prefetchable (8) and 64 bits wide (4)
_EMULATED_BAR_BITS = 0xC
_MEMORY_LAYOUTS = ("mainline", "bar2")
_CONFIG_SIZES = (256, 4096)
# A product's figure is nominal. Firmware keeps up to about 2 % of it (nvidia-smi's totals), another product has at
# least a third more or less: a sixteenth tells the two apart.
_NOMINAL_TOLERANCE = 16

_FALLBACK_CAUSES = {
    "present": "the firmware tables name the properties, so the size is probably 0: the C2C link is down",
    "absent": "the firmware tables hold no nvidia,gpu-mem properties",
    "unknown": "the properties nvidia,gpu-mem-base-pa and nvidia,gpu-mem-size are missing, or the size is 0",
}


@dataclass(frozen=True)
class Expectation:
    """What is known of a device before it is opened. ``mig_bug`` None: its config space could not be read.
    ``firmware_properties``: whether some ACPI table has the names of the memory properties, present, absent or unknown.
    """

    driver: str
    bars: tuple[Bar, ...]
    layout: str
    mig_bug: Optional[bool]
    product: Optional[Product]
    expected_memory: Optional[int]
    page_size: int
    firmware_properties: str = "unknown"


@dataclass(frozen=True)
class Judgement:
    """The verdict on a device; ``regions`` and ``memory`` are in the form of the module's result."""

    layout: str
    verdict: str
    reasons: tuple[str, ...]
    memory: dict[str, Any]
    regions: tuple[dict[str, Any], ...]


def judge(seen: Observation, expected: Expectation) -> Judgement:
    """Compares every region, the BAR registers, the layout and the total of the memory."""
    layout = layouts.recognise(seen.regions, expected.driver)
    problems = [f"The kernel's answer makes no sense: {text}." for text in seen.complaints]
    problems += _layout_reasons(layout, expected)
    emulated, error = _emulated_regions(layout, seen, expected)
    if error:
        problems.append(error)
    problems += _missing_regions(seen, expected, emulated)
    regions = tuple(_judge_region(region, seen, expected, emulated) for region in seen.regions
                    if region.index <= CONFIG_REGION)
    problems += [f"{region['name']}: {reason}" for region in regions for reason in region["reasons"]]
    memory, memory_verdict, memory_reason = _judge_memory(layout, seen, expected)
    verdict = FAIL if problems else memory_verdict
    return Judgement(layout, verdict, (*problems, *([memory_reason] if memory_reason else [])), memory, regions)


def _missing_regions(seen: Observation, expected: Expectation,
                     emulated: dict[int, layouts.EmulatedRegion]) -> list[str]:
    """Sentences for regions that the kernel answers no question about, although they must be there."""
    present = {region.index for region in seen.regions}
    if CONFIG_REGION not in present:
        return ["VFIO answers no question about the config region: the driver was probably built for another kernel."]
    wanted = {bar.index: f"{bar.size} bytes of the function's own BAR" for bar in expected.bars}
    wanted.update({item.index: f"{item.actual} bytes of {item.role}" for item in emulated.values()})
    return [f"{REGION_NAMES[index]} is missing: it must show {what}." for index, what in sorted(wanted.items())
            if index not in present]


def _layout_reasons(layout: str, expected: Expectation) -> list[str]:
    """Sentences for a layout that must not be; none where it is the right one."""
    coherent = expected.product is not None or expected.expected_memory is not None
    if expected.layout != "auto" and layout != expected.layout:
        return [f"The layout is {layout} and {expected.layout} was asked for."] + _why_no_memory(layout, expected)
    if layout in ("plain", "fallback") and coherent:
        return _why_no_memory(layout, expected)
    return []


def _why_no_memory(layout: str, expected: Expectation) -> list[str]:
    if layout == "plain":
        return ["The driver is vfio-pci, which cannot show the GPU's coherent memory: install the variant driver "
                "(dkms_module) and bind with driver auto."]
    if layout == "fallback":
        cause = _FALLBACK_CAUSES[expected.firmware_properties]
        return [f"{expected.driver} is bound but region 4 has no sparse area: the driver fell back to plain vfio-pci "
                f"behaviour and shows no coherent memory ({cause}); see the kernel log."]
    return []


def _emulated_regions(layout: str, seen: Observation,
                      expected: Expectation) -> tuple[dict[int, layouts.EmulatedRegion], Optional[str]]:
    """The regions that GPU memory must fill. Without an exact figure they follow from the total that was seen."""
    if layout not in _MEMORY_LAYOUTS:
        return {}, None
    mig_bug = _resmem_is_there(seen) if expected.mig_bug is None else expected.mig_bug
    memory = expected.expected_memory or _total(seen)
    try:
        return {item.index: item for item in layouts.expected_regions(layout, memory, mig_bug)}, None
    except layouts.LayoutError as error:
        return {}, error.message


def _resmem_is_there(seen: Observation) -> bool:
    region = seen.region(layouts.RESMEM_INDEX)
    return region is not None and layouts.is_emulated(region)


def _total(seen: Observation) -> int:
    return sum(layouts.actual_size(region) for region in seen.regions if layouts.is_emulated(region))


def _judge_memory(layout: str, seen: Observation,
                  expected: Expectation) -> tuple[dict[str, Any], str, Optional[str]]:
    """The total of coherent memory: the fact, the verdict, and its reason where it is not ok."""
    product = expected.product
    total = _total(seen)
    if layout not in _MEMORY_LAYOUTS:
        return {"expected": expected.expected_memory, "seen": 0, "source": "none"}, OK, None
    if expected.expected_memory is not None:
        fact = {"expected": expected.expected_memory, "seen": total, "source": "expected_memory"}
        # whole pages are what can be mapped, in each of at most two regions
        if expected.expected_memory - 2 * expected.page_size < total <= expected.expected_memory:
            return fact, OK, None
        return fact, FAIL, f"VFIO shows {total} bytes of GPU memory and {expected.expected_memory} were expected."
    if product is not None:
        fact = {"expected": product.memory, "seen": total, "source": "product"}
        if abs(product.memory - total) * _NOMINAL_TOLERANCE <= product.memory:
            return fact, OK, None
        return fact, FAIL, (f"VFIO shows {total} bytes of GPU memory and {product.name} has nominally "
                            f"{product.memory}: look at the firmware, or set expected_memory to the right figure.")
    fact = {"expected": None, "seen": total, "source": "none"}
    return fact, UNCHECKED, (f"VFIO shows {total} bytes of GPU memory and nothing says how many there must be: set "
                             "expected_memory.")


def _judge_region(region: RegionInfo, seen: Observation, expected: Expectation,
                  emulated: dict[int, layouts.EmulatedRegion]) -> dict[str, Any]:
    wanted = emulated.get(region.index)
    register = _bar_register(region, seen)
    if wanted is not None:
        role, reasons = wanted.role, _emulated_reasons(region, wanted, register, expected.page_size)
    elif region.index in BAR_REGIONS:
        role, reasons = _physical_reasons(region, register, expected)
    else:
        role, reasons = _other_reasons(region)
    reasons += [finding.text for finding in seen.findings if finding.index == region.index and not finding.ok]
    actual = layouts.actual_size(region) if layouts.is_emulated(region) else region.size
    return {
        "index": region.index,
        "name": REGION_NAMES[region.index],
        "role": role,
        "reported": region.size,
        "actual": actual,
        "flags": region.flag_names(),
        "sparse": [{"offset": area.offset, "size": area.size} for area in region.sparse or ()],
        "offset": region.offset,
        "bar_register": None if register is None else f"0x{register:016x}",
        "verdict": FAIL if reasons else OK,
        "reasons": reasons,
    }


def _bar_register(region: RegionInfo, seen: Observation) -> Optional[int]:
    """Value of the region's BAR in config space, both halves of a 64-bit one; None for what has no BAR."""
    if region.index not in BAR_REGIONS or not region.size or region.index >= len(seen.bar_registers):
        return None
    low = seen.bar_registers[region.index]
    wide = not low & 1 and low & 6 == 4 and region.index + 1 < len(seen.bar_registers)
    return low | (seen.bar_registers[region.index + 1] << 32 if wide else 0)


def _emulated_reasons(region: RegionInfo, wanted: layouts.EmulatedRegion, register: Optional[int],
                      page_size: int) -> list[str]:
    reasons = []
    if region.size != wanted.reported:
        reasons.append(f"reports {region.size} bytes and {wanted.role} must report {wanted.reported}.")
    if not layouts.is_emulated(region):
        reasons.append("must have one sparse area from its start and has another form.")
    elif layouts.actual_size(region) not in (wanted.actual, wanted.actual // page_size * page_size):
        reasons.append(f"has {layouts.actual_size(region)} bytes of {wanted.role} and must have {wanted.actual}.")
    if region.flags & _EMULATED_FLAGS != _EMULATED_FLAGS:
        reasons.append(f"has the flags {', '.join(region.flag_names())} and must have read, write, mmap and caps.")
    if register is not None and register & 0xF != _EMULATED_BAR_BITS:
        reasons.append(f"its BAR register is 0x{register:016x} and must say 64 bits wide and prefetchable.")
    elif register is not None and register & (wanted.reported - 1) & ~0xF:
        reasons.append(f"its BAR register is 0x{register:016x}, which is not aligned to its {wanted.reported} bytes.")
    return reasons


def _physical_reasons(region: RegionInfo, register: Optional[int], expected: Expectation) -> tuple[str, list[str]]:
    """A region that is a BAR of the function itself must be as large as that, or absent like that."""
    bar = next((bar for bar in expected.bars if bar.index == region.index), None)
    size = bar.size if bar else 0
    role = "physical" if region.size else "absent"
    reasons = []
    if region.size != size:
        reasons.append(f"reports {region.size} bytes and the function's own BAR has {size}.")
    if bar is not None and register is not None and not bar.io:
        bits = (4 if bar.bits64 else 0) | (8 if bar.prefetchable else 0)
        if register & 0xF != bits:
            reasons.append(f"its BAR register is 0x{register:016x} and the function's own BAR has the type {bits}.")
    return role, reasons


def _other_reasons(region: RegionInfo) -> tuple[str, list[str]]:
    if region.index == ROM_REGION:
        return ("rom" if region.size else "absent"), []
    if region.size not in _CONFIG_SIZES:
        return "config", [f"has {region.size} bytes and config space has 256 or 4096."]
    return "config", []
