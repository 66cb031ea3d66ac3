# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure: what was seen of a device against what had to be seen. Every verdict comes with its reasons as sentences, and a
good one with its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from .._gpu.model import Bar
from .._gpu.products import Product
from . import layout as layouts
from .driver import KERNEL, DriverFacts, implementation
from .observe import Observation
from .probe import Finding
from .record import FAIL
from .uapi import (
    BAR_REGIONS,
    CONFIG_REGION,
    REGION_CAPS,
    REGION_MMAP,
    REGION_NAMES,
    REGION_READ,
    REGION_WRITE,
    ROM_REGION,
    VGA_REGION,
    RegionInfo,
)

OK, UNCHECKED = "ok", "unchecked"

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

# What the kernel's own driver of Linux 6.9 to 7.3 does otherwise (docs/kernel-module.md): noted, and no failure.
_KERNEL_DEVIATIONS = {
    "straddling read": "the kernel's own driver cuts a read that crosses the end of resmem",
    "wide config read": "the kernel's own driver shows one emulated BAR only in a config read that spans several",
}

# A thing that was compared: whether it holds, the sentence where it does, the sentence where it does not.
_Compared = tuple[bool, str, str]


@dataclass(frozen=True)
class Expectation:
    """What is known of a device before it is opened. ``mig_bug`` None: its config space could not be read.
    ``firmware_properties``: whether some ACPI table has the names of the memory properties, present, absent or unknown.
    ``kernel_says``: why the driver shows no memory, in the words of the kernel log. ``x86``: a host whose GPUs have no
    coherent memory unless something says so.
    """

    driver: DriverFacts
    bars: tuple[Bar, ...]
    layout: str
    mig_bug: Optional[bool]
    product: Optional[Product]
    expected_memory: Optional[int]
    page_size: int
    firmware_properties: str = "unknown"
    kernel_says: Optional[str] = None
    x86: bool = False

    @property
    def coherent(self) -> bool:
        """Whether something says that the GPU has coherent memory."""
        return self.product is not None or self.expected_memory is not None


@dataclass(frozen=True)
class Judgement:
    """The verdict on a device; ``regions`` and ``memory`` are in the form of the module's result. ``layout`` is None
    where the kernel's answers about the regions that tell it cannot be true."""

    implementation: Optional[str]
    layout: Optional[str]
    verdict: str
    reasons: tuple[str, ...]
    evidence: tuple[str, ...]
    notes: tuple[str, ...]
    memory: dict[str, Any]
    regions: tuple[dict[str, Any], ...]


def judge(seen: Observation, expected: Expectation) -> Judgement:
    """Compares every region, the BAR registers, the layout and the total of the memory."""
    made_by = implementation(expected.driver, seen.wide_reads_whole if seen.wide_registers else None)
    findings, notes = _without_known_deviations([*seen.findings, *_wide_read(seen)], made_by)
    layout = _layout(seen, expected)
    problems = [f"The kernel's answer makes no sense: {REGION_NAMES[complaint.index]}: {complaint.text}."
                for complaint in seen.complaints]
    problems += _layout_reasons(layout, expected)
    emulated, error = _emulated_regions(layout, seen, expected)
    if error:
        problems.append(error)
    regions = tuple(_judge_region(region, seen, expected, emulated, findings, told=layout is not None)
                    for region in seen.regions)
    fitting = all(region["verdict"] == OK for region in regions if region["index"] in emulated)
    memory, memory_verdict, memory_text = _judge_memory(layout, seen, expected, fitting)
    if memory_verdict == FAIL:  # first, because it explains what single regions have too much or too little
        problems.append(memory_text)
    problems += _missing_regions(seen, expected, emulated)
    problems += _shared_places(seen)
    problems += [f"{region['name']}: {reason}" for region in regions for reason in region["reasons"]]
    evidence = [f"The layout is {layout}, shown by {expected.driver.name}."] if layout else []
    if memory_verdict == OK:
        evidence.append(memory_text)
    reasons = (*problems, *([memory_text] if memory_verdict == UNCHECKED else []))
    return Judgement(made_by, layout, FAIL if problems else memory_verdict, reasons, tuple(evidence), notes, memory,
                     regions)


def _wide_read(seen: Observation) -> list[Finding]:
    """The outcome of reading all BAR registers at once."""
    if not seen.bar_registers:
        return []
    if seen.wide_reads_whole:
        text = "one read over all BAR registers shows what single reads show."
    else:
        text = "one read over all BAR registers lacks some that single reads show."
    return [Finding(CONFIG_REGION, "wide config read", seen.wide_reads_whole, text)]


def _without_known_deviations(findings: list[Finding],
                              made_by: Optional[str]) -> tuple[list[Finding], tuple[str, ...]]:
    """The findings that decide, and notes about those that are known of this driver."""
    known = [item for item in findings if not item.ok and made_by == KERNEL and item.check in _KERNEL_DEVIATIONS]
    notes = (f"{REGION_NAMES[item.index]}: {_KERNEL_DEVIATIONS[item.check]}; {item.text}" for item in known)
    return [item for item in findings if item not in known], tuple(notes)


def _layout(seen: Observation, expected: Expectation) -> Optional[str]:
    if {complaint.index for complaint in seen.complaints} & {layouts.RESMEM_INDEX, layouts.USEMEM_INDEX}:
        return None
    return layouts.recognise(seen.regions, expected.driver.name)


def _shared_places(seen: Observation) -> list[str]:
    """Sentences for regions that lie over each other in the device file, where a write to one changes another."""
    found, reached, last = [], 0, ""
    for region in sorted((item for item in seen.regions if item.size), key=lambda item: item.offset):
        name = REGION_NAMES[region.index]
        if region.offset < reached:
            found.append(f"{name} lies over {last} in the device file, at {region.offset:#x}.")
        if region.offset + region.size > reached:
            reached, last = region.offset + region.size, name
    return found


def _missing_regions(seen: Observation, expected: Expectation,
                     emulated: dict[int, layouts.EmulatedRegion]) -> list[str]:
    """Sentences for regions that the kernel answers no question about, although they must be there."""
    present = {region.index for region in seen.regions} | {complaint.index for complaint in seen.complaints}
    if CONFIG_REGION not in present:
        return ["VFIO answers no question about the config region: the driver was probably built for another kernel."]
    wanted = {bar.index: f"{bar.size} bytes of the function's own BAR" for bar in expected.bars}
    wanted.update({item.index: f"{item.actual} bytes of {item.role}" for item in emulated.values()})
    return [f"{REGION_NAMES[index]} is missing: it must show {what}." for index, what in sorted(wanted.items())
            if index not in present]


def _layout_reasons(layout: Optional[str], expected: Expectation) -> list[str]:
    """Sentences for a layout that must not be; none where it is the right one, or could not be told."""
    if layout is None:
        return []
    if expected.layout != "auto" and layout != expected.layout:
        return [f"The layout is {layout} and {expected.layout} was asked for.", *_why_no_memory(layout, expected)]
    return _why_no_memory(layout, expected) if expected.coherent else []


def _why_no_memory(layout: str, expected: Expectation) -> list[str]:
    if layout == "plain":
        return ["The driver is vfio-pci, which cannot show the GPU's coherent memory: install the variant driver "
                "(dkms_module) and bind with driver auto."]
    if layout == "fallback":
        if expected.kernel_says:
            cause = f"the kernel log says: {expected.kernel_says}"
        else:
            cause = f"{_FALLBACK_CAUSES[expected.firmware_properties]}; the kernel log may say more"
        return [f"{expected.driver.name} is bound but region {_main_region(expected)} has no sparse area: the driver "
                f"fell back to plain vfio-pci behaviour and shows no coherent memory ({cause})."]
    return []


def _main_region(expected: Expectation) -> int:
    """Where most of the memory must be."""
    return layouts.RESMEM_INDEX if "bar2" in (expected.layout, expected.driver.layout) else layouts.USEMEM_INDEX


def _emulated_regions(layout: Optional[str], seen: Observation,
                      expected: Expectation) -> tuple[dict[int, layouts.EmulatedRegion], Optional[str]]:
    """The regions that GPU memory must fill. Without an exact figure they follow from the total that was seen."""
    if layout not in _MEMORY_LAYOUTS:
        return {}, None
    mig_bug = _resmem_is_there(seen) if expected.mig_bug is None else expected.mig_bug
    memory = expected.expected_memory or _total(seen)
    try:
        return {item.index: item for item in layouts.expected_regions(str(layout), memory, mig_bug)}, None
    except layouts.LayoutError as error:
        return {}, error.message


def _resmem_is_there(seen: Observation) -> bool:
    region = seen.region(layouts.RESMEM_INDEX)
    return region is not None and layouts.is_emulated(region)


def _total(seen: Observation) -> int:
    return sum(layouts.actual_size(region) for region in seen.regions if layouts.is_emulated(region))


def _judge_memory(layout: Optional[str], seen: Observation, expected: Expectation,
                  fitting: bool) -> tuple[dict[str, Any], str, str]:
    """The total of coherent memory: the fact, the verdict, and the sentence that says why. ``fitting``: its regions are
    those that follow from ``expected_memory``; the last bytes may move memory from one to the other."""
    product = expected.product
    if layout not in _MEMORY_LAYOUTS:
        return _judge_no_memory(layout, expected)
    total = _total(seen)
    if expected.expected_memory is not None:
        fact = {"expected": expected.expected_memory, "seen": total, "source": "expected_memory"}
        # whole pages are what can be mapped, in each of at most two regions
        if total == expected.expected_memory or \
                (fitting and expected.expected_memory - 2 * expected.page_size < total < expected.expected_memory):
            return fact, OK, f"VFIO shows {total} bytes of GPU memory, as expected_memory says."
        return fact, FAIL, f"VFIO shows {total} bytes of GPU memory and {expected.expected_memory} were expected."
    if product is not None:
        fact = {"expected": product.memory, "seen": total, "source": "product"}
        if abs(product.memory - total) * _NOMINAL_TOLERANCE <= product.memory:
            return fact, OK, (f"VFIO shows {total} bytes of GPU memory, near the nominal {product.memory} of "
                              f"{product.name}.")
        return fact, FAIL, (f"VFIO shows {total} bytes of GPU memory and {product.name} has nominally "
                            f"{product.memory}: look at the firmware, or set expected_memory to the right figure.")
    fact = {"expected": None, "seen": total, "source": "none"}
    return fact, UNCHECKED, (f"VFIO shows {total} bytes of GPU memory and nothing says how many there must be: set "
                             "expected_memory.")


def _judge_no_memory(layout: Optional[str], expected: Expectation) -> tuple[dict[str, Any], str, str]:
    """The same where no region shows coherent memory. Where some had to be there, the layout is a problem already."""
    fact = {"expected": expected.expected_memory, "seen": 0, "source": "none"}
    if layout is None:
        return fact, FAIL, "The layout and the memory cannot be told."
    if expected.coherent:
        return fact, FAIL, "VFIO shows no coherent GPU memory."
    if layout == "plain" and expected.x86:
        return fact, OK, "The GPU has no coherent memory, as all of x86 hosts."
    return fact, UNCHECKED, ("VFIO shows no coherent GPU memory, and the GPU is in no product table, so that nothing "
                             "says whether there must be some: set product or expected_memory.")


def _judge_region(region: RegionInfo, seen: Observation, expected: Expectation,
                  emulated: dict[int, layouts.EmulatedRegion], findings: list[Finding], told: bool) -> dict[str, Any]:
    """One region in the form of the result. What memory must look like is unknown unless the layout was ``told``."""
    wanted = emulated.get(region.index)
    register = _bar_register(region, seen)
    if wanted is not None:
        role, compared = wanted.role, _compare_emulated(region, wanted, register, expected.page_size)
    elif not told and layouts.is_emulated(region):
        role, compared = ("usemem" if region.index == layouts.USEMEM_INDEX else "resmem"), []
    elif region.index in BAR_REGIONS:
        role, compared = ("physical" if region.size else "absent"), _compare_physical(region, register, expected)
    else:
        role, compared = _compare_other(region)
    compared += [(item.ok, item.text, item.text) for item in findings if item.index == region.index]
    reasons = [bad for holds, _good, bad in compared if not holds]
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
        "evidence": [good for holds, good, _bad in compared if holds],
    }


def _bar_register(region: RegionInfo, seen: Observation) -> Optional[int]:
    """Value of the region's BAR in config space, both halves of a 64-bit one; None for what has no BAR."""
    if region.index not in BAR_REGIONS or not region.size or region.index >= len(seen.bar_registers):
        return None
    low = seen.bar_registers[region.index]
    wide = not low & 1 and low & 6 == 4 and region.index + 1 < len(seen.bar_registers)
    return low | (seen.bar_registers[region.index + 1] << 32 if wide else 0)


def _compare_emulated(region: RegionInfo, wanted: layouts.EmulatedRegion, register: Optional[int],
                      page_size: int) -> list[_Compared]:
    actual = layouts.actual_size(region)
    flags = ", ".join(region.flag_names())
    compared = [(region.size == wanted.reported, f"reports {region.size} bytes, as {wanted.role} must.",
                 f"reports {region.size} bytes and {wanted.role} must report {wanted.reported}.")]
    if layouts.is_emulated(region):
        compared.append((actual in (wanted.actual, wanted.actual // page_size * page_size),
                         f"has {actual} bytes of {wanted.role} in one sparse area from its start.",
                         f"has {actual} bytes of {wanted.role} and must have {wanted.actual}."))
    else:
        compared.append((False, "", "must have one sparse area from its start and has another form."))
    compared.append((region.flags & _EMULATED_FLAGS == _EMULATED_FLAGS, f"has the flags {flags}.",
                     f"has the flags {flags} and must have read, write, mmap and caps."))
    if register is not None:
        shown = f"its BAR register is 0x{register:016x}"
        compared.append((register & 0xF == _EMULATED_BAR_BITS, f"{shown}: 64 bits wide and prefetchable.",
                         f"{shown} and must say 64 bits wide and prefetchable."))
        compared.append(_aligned(register, wanted.reported, shown))
    return compared


def _aligned(register: int, size: int, shown: str) -> _Compared:
    return (not register & (size - 1) & ~0xF, f"{shown}: aligned to its {size} bytes.",
            f"{shown}, which is not aligned to its {size} bytes.")


def _compare_physical(region: RegionInfo, register: Optional[int], expected: Expectation) -> list[_Compared]:
    """A region that is a BAR of the function itself must be as large as that, or absent like that."""
    bar = next((bar for bar in expected.bars if bar.index == region.index), None)
    size = bar.size if bar else 0
    compared = [(region.size == size, f"reports {size} bytes, as the function's own BAR." if size else "is not there.",
                 f"reports {region.size} bytes and the function's own BAR has {size}.")]
    if bar is not None and register is not None and not bar.io:
        bits = (4 if bar.bits64 else 0) | (8 if bar.prefetchable else 0)
        shown = f"its BAR register is 0x{register:016x}"
        compared.append((register & 0xF == bits, f"{shown}: of the type {bits}, as the function's own BAR.",
                         f"{shown} and the function's own BAR has the type {bits}."))
        compared.append(_aligned(register, bar.size, shown))
    return compared


def _compare_other(region: RegionInfo) -> tuple[str, list[_Compared]]:
    """ROM and VGA may be there or not; config space has one of two sizes."""
    if region.index == CONFIG_REGION:
        return "config", [(region.size in _CONFIG_SIZES, f"has {region.size} bytes.",
                           f"has {region.size} bytes and config space has 256 or 4096.")]
    role = {ROM_REGION: "rom", VGA_REGION: "vga"}[region.index]
    if not region.size:
        return "absent", [(True, "is not there.", "")]
    return role, [(True, f"has {region.size} bytes.", "")]
