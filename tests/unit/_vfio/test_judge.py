# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts: what was seen against what is expected, as a table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.model import Bar
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.products import product_named
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.judge import Expectation, judge
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.layout import GIB, MIB
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.observe import Finding, Observation
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.uapi import Area, RegionInfo

VARIANT = "nvgrace_gpu_vfio_pci"
BAR0 = RegionInfo(0, 7, 16 * MIB, 0)
RESMEM = RegionInfo(2, 15, GIB, 2 << 40, (Area(0, GIB),))
USEMEM = RegionInfo(4, 15, 2 * GIB, 4 << 40, (Area(0, 1536 * MIB),))
CONFIG = RegionInfo(7, 3, 4096, 7 << 40)
REGISTERS = (0x1100000C, 0, 0xC, 0, 0xC, 0)
HOPPER = Observation((BAR0, RESMEM, USEMEM, CONFIG), REGISTERS)
FALLBACK = Observation((BAR0, RegionInfo(2, 0, 0, 0), RegionInfo(4, 0, 0, 0), CONFIG), (0x1100000C, 0, 0, 0, 0, 0))
EXPECTED = Expectation(driver=VARIANT, bars=(Bar(0, 0x11000000, 16 * MIB, 0x14220C),), layout="auto", mig_bug=True,
                       product=product_named("gh200-120gb"), expected_memory=2560 * MIB, page_size=4096)
NOTHING_KNOWN = replace(EXPECTED, product=None, expected_memory=None)


def change(seen: Observation, index: int, **values: Any) -> Observation:
    return replace(seen, regions=tuple(replace(item, **values) if item.index == index else item
                                       for item in seen.regions))


def drop(seen: Observation, index: int) -> Observation:
    return replace(seen, regions=tuple(item for item in seen.regions if item.index != index))


@pytest.mark.parametrize(("seen", "expected", "layout"), [
    (HOPPER, EXPECTED, "mainline"),
    (HOPPER, replace(EXPECTED, mig_bug=None), "mainline"),
    (HOPPER, replace(EXPECTED, layout="mainline"), "mainline"),
    (change(drop(HOPPER, 2), 4, sparse=(Area(0, 1280 * MIB),)),
     replace(EXPECTED, mig_bug=False, expected_memory=1280 * MIB), "mainline"),
    # memory that is no multiple of a page: only its full pages can be mapped
    (change(drop(HOPPER, 2), 4, sparse=(Area(0, 1280 * MIB),)),
     replace(EXPECTED, mig_bug=False, expected_memory=1280 * MIB + 100), "mainline"),
    (change(drop(HOPPER, 4), 2, size=4 * GIB, sparse=(Area(0, 2560 * MIB),)), EXPECTED, "bar2"),
    (FALLBACK, replace(NOTHING_KNOWN, driver="vfio-pci"), "plain"),
    # a nominal figure: firmware keeps a part
    (change(change(HOPPER, 4, size=128 * GIB, sparse=(Area(0, 94 * GIB),)), 2, size=2 * GIB,
            sparse=(Area(0, GIB + 256 * MIB),)), replace(EXPECTED, expected_memory=None), "mainline"),
])
def test_ok(seen: Observation, expected: Expectation, layout: str) -> None:
    judgement = judge(seen, expected)
    assert (judgement.verdict, judgement.reasons, judgement.layout) == ("ok", (), layout)


def test_memory_that_nobody_knows_is_unchecked() -> None:
    judgement = judge(HOPPER, NOTHING_KNOWN)
    assert judgement.verdict == "unchecked"
    assert judgement.reasons == ("VFIO shows 2684354560 bytes of GPU memory and nothing says how many there must be: "
                                 "set expected_memory.",)
    assert judgement.memory == {"expected": None, "seen": 2560 * MIB, "source": "none"}


@pytest.mark.parametrize(("seen", "expected", "reason"), [
    (HOPPER, replace(EXPECTED, expected_memory=3 * GIB), "VFIO shows 2684354560 bytes of GPU memory and 3221225472"),
    (HOPPER, replace(EXPECTED, expected_memory=None), "GH200 120GB (96 GiB HBM3) has nominally 103079215104"),
    (HOPPER, replace(EXPECTED, expected_memory=MIB), "are too few"),
    (HOPPER, replace(EXPECTED, mig_bug=False), "BAR4: reports 2147483648 bytes and usemem must report 4294967296."),
    (HOPPER, replace(EXPECTED, layout="bar2"), "The layout is mainline and bar2 was asked for."),
    (FALLBACK, EXPECTED, "region 4 has no sparse area: the driver fell back"),
    (FALLBACK, replace(EXPECTED, firmware_properties="present"), "C2C link is down"),
    (FALLBACK, replace(EXPECTED, firmware_properties="absent"), "the firmware tables hold no nvidia,gpu-mem"),
    (FALLBACK, replace(EXPECTED, driver="vfio-pci"), "The driver is vfio-pci, which cannot show"),
    (FALLBACK, replace(NOTHING_KNOWN, driver="vfio-pci", layout="mainline"), "The layout is plain and mainline"),
    (drop(HOPPER, 2), EXPECTED, "BAR2 is missing: it must show 1073741824 bytes of resmem."),
    (drop(FALLBACK, 0), replace(NOTHING_KNOWN, driver="vfio-pci"),
     "BAR0 is missing: it must show 16777216 bytes of the function's own BAR."),
    (replace(FALLBACK, regions=(), bar_registers=()), replace(NOTHING_KNOWN, driver="vfio-pci"),
     "VFIO answers no question about the config region"),
    (change(HOPPER, 2, size=2 * GIB), EXPECTED, "BAR2: reports 2147483648 bytes and resmem must report 1073741824."),
    (change(HOPPER, 4, sparse=(Area(0, GIB),)), EXPECTED, "BAR4: has 1073741824 bytes of usemem"),
    (change(HOPPER, 4, flags=13), EXPECTED, "BAR4: has the flags read, mmap, caps"),
    (change(HOPPER, 2, sparse=None), EXPECTED, "BAR2: must have one sparse area"),
    (replace(HOPPER, bar_registers=(0x1100000C, 0, 0xC, 0, 0x4, 0)), EXPECTED, "must say 64 bits wide and prefetch"),
    (replace(HOPPER, bar_registers=(0x1100000C, 0, 0xC, 0, 0x1000000C, 4)), EXPECTED,
     "BAR4: its BAR register is 0x000000041000000c, which is not aligned to its 2147483648 bytes."),
    (replace(HOPPER, bar_registers=(0x11000004, 0, 0xC, 0, 0xC, 0)), EXPECTED, "has the type 12"),
    (change(HOPPER, 0, size=8 * MIB), EXPECTED, "BAR0: reports 8388608 bytes and the function's own BAR has 16777216."),
    (change(HOPPER, 7, size=100), EXPECTED, "CONFIG: has 100 bytes"),
    (replace(HOPPER, complaints=("BAR1: x",)), EXPECTED, "The kernel's answer makes no sense: BAR1: x."),
    (replace(HOPPER, findings=(Finding(4, "hole", False, "the hole reads 00"),)), EXPECTED, "BAR4: the hole reads 00"),
])
def test_fail(seen: Observation, expected: Expectation, reason: str) -> None:
    judgement = judge(seen, expected)
    assert judgement.verdict == "fail"
    assert any(reason in text for text in judgement.reasons), judgement.reasons


def test_regions_of_the_result() -> None:
    judgement = judge(replace(HOPPER, findings=(Finding(4, "hole", True, "hole: as expected"),)), EXPECTED)
    usemem = next(region for region in judgement.regions if region["index"] == 4)
    assert usemem == {
        "index": 4, "name": "BAR4", "role": "usemem", "reported": 2 * GIB, "actual": 1536 * MIB,
        "flags": ["read", "write", "mmap", "caps"], "sparse": [{"offset": 0, "size": 1536 * MIB}], "offset": 4 << 40,
        "bar_register": "0x000000000000000c", "verdict": "ok", "reasons": []}
    assert [(region["name"], region["role"]) for region in judgement.regions] == [
        ("BAR0", "physical"), ("BAR2", "resmem"), ("BAR4", "usemem"), ("CONFIG", "config")]
