# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts: what was seen against what is expected, as a table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.model import Bar
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.products import product_named
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.driver import DriverFacts
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.judge import Expectation, judge
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.layout import GIB, MIB
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.observe import Complaint, Observation
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.probe import Finding
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.uapi import Area, RegionInfo

VARIANT = DriverFacts("nvgrace_gpu_vfio_pci", "SRC", "mainline", True)
IN_TREE = DriverFacts("nvgrace_gpu_vfio_pci", "SRC")
PLAIN = DriverFacts("vfio-pci", "SRC")
BAR0 = RegionInfo(0, 7, 16 * MIB, 0)
RESMEM = RegionInfo(2, 15, GIB, 2 << 40, (Area(0, GIB),))
USEMEM = RegionInfo(4, 15, 2 * GIB, 4 << 40, (Area(0, 1536 * MIB),))
CONFIG = RegionInfo(7, 3, 4096, 7 << 40)
REGISTERS = (0x1100000C, 0, 0xC, 0, 0xC, 0)
HOPPER = Observation((BAR0, RESMEM, USEMEM, CONFIG), REGISTERS, REGISTERS)
FALLBACK = Observation((BAR0, RegionInfo(2, 0, 0, 0), RegionInfo(4, 0, 0, 0), CONFIG), (0x1100000C, 0, 0, 0, 0, 0),
                       (0x1100000C, 0, 0, 0, 0, 0))
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
    (FALLBACK, replace(NOTHING_KNOWN, driver=PLAIN, x86=True), "plain"),
    # a sparse area of vfio-pci leaves out an MSI-X table, and is no coherent memory
    (change(HOPPER, 4, size=2 * GIB), replace(NOTHING_KNOWN, driver=PLAIN, x86=True, bars=(
        *EXPECTED.bars, Bar(2, 0x80000000, GIB, 0x14220C), Bar(4, 0x100000000, 2 * GIB, 0x14220C))), "plain"),
    # a region of the device itself, and the VGA window
    (replace(HOPPER, regions=(*HOPPER.regions, RegionInfo(8, 3, 0xC0000, 8 << 40))), EXPECTED, "mainline"),
    (replace(HOPPER, regions=(*HOPPER.regions, RegionInfo(6, 1, 0x80000, 6 << 40))), EXPECTED, "mainline"),
    # a ROM and a VGA window that are not there, and the config space of a function that is not PCI Express
    (replace(HOPPER, regions=(*HOPPER.regions, RegionInfo(6, 0, 0, 6 << 40), RegionInfo(8, 0, 0, 0))), EXPECTED,
     "mainline"),
    (change(HOPPER, 7, size=256), EXPECTED, "mainline"),
    # a physical BAR2 beside usemem, where config space could not be read before
    (change(change(HOPPER, 2, size=32 * MIB, sparse=None, flags=7), 4, sparse=(Area(0, 1280 * MIB),)),
     replace(EXPECTED, mig_bug=None, expected_memory=1280 * MIB,
             bars=(*EXPECTED.bars, Bar(2, 0x20000000, 32 * MIB, 0x14220C))), "mainline"),
    # two 32-bit BARs, the second of which is no half of the first
    (replace(HOPPER, regions=(BAR0, RegionInfo(1, 7, MIB, 1 << 40), *HOPPER.regions[1:]),
             bar_registers=(0x11000000, 0x22000000, 0xC, 0, 0xC, 0),
             wide_registers=(0x11000000, 0x22000000, 0xC, 0, 0xC, 0)),
     replace(EXPECTED, bars=(Bar(0, 0x11000000, 16 * MIB, 0x40200), Bar(1, 0x22000000, MIB, 0x40200))), "mainline"),
    # a nominal figure: firmware keeps a part
    (change(change(HOPPER, 4, size=128 * GIB, sparse=(Area(0, 94 * GIB),)), 2, size=2 * GIB,
            sparse=(Area(0, GIB + 256 * MIB),)), replace(EXPECTED, expected_memory=None), "mainline"),
])
def test_ok(seen: Observation, expected: Expectation, layout: str) -> None:
    judgement = judge(seen, expected)
    assert (judgement.verdict, judgement.reasons, judgement.layout) == ("ok", (), layout)


@pytest.mark.parametrize("expected", [
    NOTHING_KNOWN, replace(NOTHING_KNOWN, driver=PLAIN), replace(NOTHING_KNOWN, x86=True)])
def test_no_memory_where_nobody_knows_of_any_is_unchecked(expected: Expectation) -> None:
    judgement = judge(FALLBACK, expected)
    assert judgement.verdict == "unchecked"
    assert judgement.reasons == ("VFIO shows no coherent GPU memory, and the GPU is in no product table, so that "
                                 "nothing says whether there must be some: set product or expected_memory.",)
    assert judgement.memory == {"expected": None, "seen": 0, "source": "none"}


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
    (FALLBACK, replace(EXPECTED, driver=PLAIN), "The driver is vfio-pci, which cannot show"),
    (FALLBACK, replace(NOTHING_KNOWN, driver=PLAIN, layout="mainline"), "The layout is plain and mainline"),
    (drop(HOPPER, 2), EXPECTED, "BAR2 is missing: it must show 1073741824 bytes of resmem."),
    (drop(FALLBACK, 0), replace(NOTHING_KNOWN, driver=PLAIN),
     "BAR0 is missing: it must show 16777216 bytes of the function's own BAR."),
    (replace(FALLBACK, regions=(), bar_registers=()), replace(NOTHING_KNOWN, driver=PLAIN),
     "VFIO answers no question about the config region"),
    (replace(FALLBACK, bar_registers=(), wide_registers=()), EXPECTED, "region 4 has no sparse area"),
    (FALLBACK, replace(EXPECTED, layout="bar2"), "The layout is fallback and bar2 was asked for."),
    (FALLBACK, replace(EXPECTED, layout="bar2"), "region 2 has no sparse area"),
    (FALLBACK, replace(EXPECTED, driver=replace(VARIANT, layout="bar2")), "region 2 has no sparse area"),
    (change(HOPPER, 4, offset=2 << 40), EXPECTED, "BAR4 lies over BAR2 in the device file, at 0x20000000000."),
    (change(HOPPER, 7, offset=(4 << 40) + 2 * GIB - 1), EXPECTED, "CONFIG lies over BAR4"),
    (replace(HOPPER, wide_registers=(0x1100000C, 0, 0xC, 0, 0, 0)), EXPECTED,
     "CONFIG: one read over all BAR registers lacks some"),
    (replace(HOPPER, bar_registers=(0x1180000C, 0, 0xC, 0, 0xC, 0)), EXPECTED,
     "BAR0: its BAR register is 0x000000001180000c, which is not aligned to its 16777216 bytes."),
    (replace(HOPPER, regions=(*HOPPER.regions, RegionInfo(5, 7, 4096, 5 << 40))), EXPECTED,
     "BAR5: reports 4096 bytes and the function's own BAR has 0."),
    (change(HOPPER, 2, size=2 * GIB), EXPECTED, "BAR2: reports 2147483648 bytes and resmem must report 1073741824."),
    (change(HOPPER, 4, sparse=(Area(0, GIB),)), EXPECTED, "BAR4: has 1073741824 bytes of usemem"),
    (change(HOPPER, 4, flags=13), EXPECTED, "BAR4: has the flags read, mmap, caps"),
    (change(HOPPER, 2, sparse=None), EXPECTED, "BAR2: must have one sparse area"),
    (change(HOPPER, 2, flags=11), EXPECTED, "BAR2: has the flags read, write, caps and must have"),
    (change(HOPPER, 2, flags=7), EXPECTED, "BAR2: has the flags read, write, mmap and must have"),
    (replace(HOPPER, bar_registers=(0x1100000C, 0, 0xC, 0, 0xD, 0)), EXPECTED, "must say 64 bits wide and prefetch"),
    # a BAR that says I/O, and one that says 64 bits without room for the other half
    (replace(HOPPER, bar_registers=(0x1100000D, 0, 0xC, 0, 0xC, 0)), EXPECTED,
     "BAR0: its BAR register is 0x000000001100000d"),
    (replace(HOPPER, regions=(*HOPPER.regions, RegionInfo(5, 7, MIB, 5 << 40)),
             bar_registers=(0x1100000C, 0, 0xC, 0, 0xC, 0xC)),
     replace(EXPECTED, bars=(*EXPECTED.bars, Bar(5, 0x100000, MIB, 0x40200))),
     "BAR5: its BAR register is 0x000000000000000c and the function's own BAR has the type 0."),
    (change(HOPPER, 2, offset=MIB, size=MIB), EXPECTED, "BAR2 lies over BAR0 in the device file, at 0x100000."),
    # one of the two is enough to know that there must be memory
    (FALLBACK, replace(EXPECTED, product=None), "region 4 has no sparse area"),
    (FALLBACK, replace(EXPECTED, expected_memory=None), "region 4 has no sparse area"),
    # the third lies over the first, behind the end of the second
    (change(change(HOPPER, 0, offset=4096), 2, offset=(4 << 40) + GIB, size=MIB), EXPECTED,
     "BAR2 lies over BAR4 in the device file"),
    (change(change(HOPPER, 2, offset=(4 << 40) + MIB, size=MIB), 7, offset=(4 << 40) + GIB), EXPECTED,
     "CONFIG lies over BAR4 in the device file"),
    (replace(HOPPER, bar_registers=(0x1100000C, 0, 0xC, 0, 0x4, 0)), EXPECTED, "must say 64 bits wide and prefetch"),
    (replace(HOPPER, bar_registers=(0x1100000C, 0, 0xC, 0, 0x1000000C, 4)), EXPECTED,
     "BAR4: its BAR register is 0x000000041000000c, which is not aligned to its 2147483648 bytes."),
    (replace(HOPPER, bar_registers=(0x11000004, 0, 0xC, 0, 0xC, 0)), EXPECTED, "has the type 12"),
    (change(HOPPER, 0, size=8 * MIB), EXPECTED, "BAR0: reports 8388608 bytes and the function's own BAR has 16777216."),
    (change(HOPPER, 7, size=100), EXPECTED, "CONFIG: has 100 bytes"),
    (replace(HOPPER, complaints=(Complaint(1, "x"),)), EXPECTED, "The kernel's answer makes no sense: BAR1: x."),
    (replace(HOPPER, findings=(Finding(4, "hole", False, "the hole reads 00"),)), EXPECTED, "BAR4: the hole reads 00"),
])
def test_fail(seen: Observation, expected: Expectation, reason: str) -> None:
    judgement = judge(seen, expected)
    assert judgement.verdict == "fail"
    assert any(reason in text for text in judgement.reasons), judgement.reasons


@pytest.mark.parametrize("index", [2, 4])
def test_answers_that_cannot_be_true_leave_the_layout_open(index: int) -> None:
    judgement = judge(replace(drop(HOPPER, index), complaints=(Complaint(index, "it is a lie"),)), EXPECTED)
    assert (judgement.verdict, judgement.layout) == ("fail", None)
    assert [(region["name"], region["role"]) for region in judgement.regions] == [
        ("BAR0", "physical"), ("BAR4", "usemem") if index == 2 else ("BAR2", "resmem"), ("CONFIG", "config")]
    assert judgement.reasons == (f"The kernel's answer makes no sense: BAR{index}: it is a lie.",
                                 "The layout and the memory cannot be told.")


NARROW = replace(HOPPER, wide_registers=(0x1100000C, 0, 0xC, 0, 0, 0))
CUT = Finding(2, "straddling read", False, "8 of 16 bytes")
BUILT_APART = replace(IN_TREE, out_of_tree=True)


@pytest.mark.parametrize(("driver", "seen", "who", "verdict", "notes"), [
    (VARIANT, HOPPER, "collection", "ok", 0),
    (VARIANT, NARROW, "collection", "fail", 0),
    (replace(VARIANT, out_of_tree=False), HOPPER, "collection", "ok", 0),
    (IN_TREE, HOPPER, "kernel", "ok", 0),
    (IN_TREE, NARROW, "kernel", "ok", 1),
    (BUILT_APART, NARROW, "kernel", "ok", 1),
    (BUILT_APART, replace(NARROW, findings=(CUT,)), "kernel", "ok", 2),
    (BUILT_APART, replace(NARROW, findings=(CUT, Finding(2, "hole", False, "x"))), "kernel", "fail", 2),
    (BUILT_APART, HOPPER, "other", "ok", 0),
    (BUILT_APART, replace(HOPPER, findings=(CUT,)), "other", "fail", 0),
    (VARIANT, replace(HOPPER, findings=(CUT,)), "collection", "fail", 0),
])
def test_whose_driver_it_is(driver: DriverFacts, seen: Observation, who: str, verdict: str, notes: int) -> None:
    judgement = judge(seen, replace(EXPECTED, driver=driver))
    assert (judgement.implementation, judgement.verdict, len(judgement.notes)) == (who, verdict, notes)


def test_notes_say_what_is_known() -> None:
    judgement = judge(replace(NARROW, findings=(CUT,)), replace(EXPECTED, driver=IN_TREE))
    assert judgement.notes == (
        "BAR2: the kernel's own driver cuts a read that crosses the end of resmem; 8 of 16 bytes",
        "CONFIG: the kernel's own driver shows one emulated BAR only in a config read that spans several; one read "
        "over all BAR registers lacks some that single reads show.")


@pytest.mark.parametrize(("expected", "memory"), [
    (EXPECTED, "VFIO shows 2684354560 bytes of GPU memory, as expected_memory says."),
    (replace(EXPECTED, expected_memory=None, product=replace(product_named("gb200"), memory=2560 * MIB)),
     "VFIO shows 2684354560 bytes of GPU memory, near the nominal 2684354560 of GB200 (186 GiB HBM3e)."),
])
def test_a_good_verdict_says_why(expected: Expectation, memory: str) -> None:
    assert judge(HOPPER, expected).evidence == ("The layout is mainline, shown by nvgrace_gpu_vfio_pci.", memory)


def test_why_there_need_be_no_memory() -> None:
    judgement = judge(FALLBACK, replace(NOTHING_KNOWN, driver=PLAIN, x86=True))
    assert judgement.evidence[1] == "The GPU has no coherent memory, as all of x86 hosts."


@pytest.mark.parametrize(("nominal", "verdict"), [
    (2560 * MIB * 16 // 15, "ok"), (2560 * MIB * 16 // 15 + 16, "fail"),
    (-(-2560 * MIB * 16 // 17), "ok"), (2560 * MIB * 16 // 17 - 16, "fail")])
def test_how_far_from_the_nominal_figure(nominal: int, verdict: str) -> None:
    product = replace(product_named("gh200-120gb"), memory=nominal)
    assert judge(HOPPER, replace(EXPECTED, product=product, expected_memory=None)).verdict == verdict


@pytest.mark.parametrize(("nominal", "verdict"), [(8 * GIB, "ok"), (8 * GIB + 16, "fail")])
def test_a_sixteenth_may_be_missing_and_no_more(nominal: int, verdict: str) -> None:
    """7.5 of 8 GiB are there, which is the limit itself."""
    seen = change(HOPPER, 4, size=8 * GIB, sparse=(Area(0, 6 * GIB + 512 * MIB),))
    product = replace(product_named("gh200-120gb"), memory=nominal)
    assert judge(seen, replace(EXPECTED, product=product, expected_memory=None)).verdict == verdict


def test_an_io_bar_has_no_other_half() -> None:
    """Address bits of an I/O BAR are where a memory BAR says how wide it is."""
    registers = (0xE005, 0x22000000, 0xC, 0, 0xC, 0)
    regions = (RegionInfo(0, 3, 4, 0), *HOPPER.regions[1:])
    judged = judge(replace(HOPPER, regions=regions, bar_registers=registers, wide_registers=registers),
                   replace(EXPECTED, bars=(Bar(0, 0xE004, 4, 0x40101),)))
    assert (judged.verdict, judged.regions[0]["bar_register"]) == ("ok", "0x000000000000e005")


def test_evidence_and_values_of_what_is_no_memory() -> None:
    regions = (BAR0, RegionInfo(1, 7, MIB, 1 << 40), *HOPPER.regions[1:], RegionInfo(5, 0, 0, 5 << 40),
               RegionInfo(6, 0, 0, 6 << 40), RegionInfo(8, 3, 0xC0000, 8 << 40))
    registers = (0x11000000, 0x22000000, 0xC, 0, 0xC, 0)
    judged = judge(replace(HOPPER, regions=regions, bar_registers=registers, wide_registers=registers),
                   replace(EXPECTED, bars=(Bar(0, 0x11000000, 16 * MIB, 0x40200), Bar(1, 0x22000000, MIB, 0x40200))))
    assert judged.verdict == "ok", judged.reasons
    told = {region["name"]: (region["role"], region["bar_register"], region["evidence"]) for region in judged.regions}
    assert told["BAR0"] == ("physical", "0x0000000011000000", [
        "reports 16777216 bytes, as the function's own BAR.",
        "its BAR register is 0x0000000011000000: of the type 0, as the function's own BAR.",
        "its BAR register is 0x0000000011000000: aligned to its 16777216 bytes."])
    assert told["BAR5"] == ("absent", None, ["is not there."])
    assert told["ROM"] == ("absent", None, ["is not there."])
    assert told["VGA"] == ("vga", None, ["has 786432 bytes."])
    assert told["CONFIG"] == ("config", None, [
        "has 4096 bytes.", "one read over all BAR registers shows what single reads show."])


@pytest.mark.parametrize(("missing", "verdict"), [
    (1, "ok"), (4095, "ok"), (4096, "fail"), (8192, "fail"), (-1, "fail")])
def test_how_much_a_page_may_hide(missing: int, verdict: str) -> None:
    """The last part of a page cannot be mapped, and is missing in the sparse area."""
    judgement = judge(change(HOPPER, 2, size=2 * GIB), replace(EXPECTED, expected_memory=2560 * MIB + missing))
    assert judgement.verdict == verdict
    assert not judgement.reasons or "were expected" in judgement.reasons[0]


def test_the_total_explains_regions_that_the_last_bytes_have_moved() -> None:
    """2560 MiB give 1 GiB of resmem, and 1000 bytes less half a GiB more of it: usemem has whole 512 MiB only."""
    page = 4096
    seen = change(change(HOPPER, 2, size=2 * GIB, sparse=(Area(0, 1536 * MIB - page),)), 4, sparse=(Area(0, GIB),))
    judgement = judge(seen, replace(EXPECTED, expected_memory=2560 * MIB))
    assert judgement.reasons[0] == f"VFIO shows {2560 * MIB - page} bytes of GPU memory and {2560 * MIB} were expected."
    assert judge(seen, replace(EXPECTED, expected_memory=2560 * MIB - 1000)).verdict == "ok"


def test_regions_of_the_result() -> None:
    judgement = judge(replace(HOPPER, findings=(Finding(4, "hole", True, "hole: as expected"),)), EXPECTED)
    usemem = next(region for region in judgement.regions if region["index"] == 4)
    assert usemem == {
        "index": 4, "name": "BAR4", "role": "usemem", "reported": 2 * GIB, "actual": 1536 * MIB,
        "flags": ["read", "write", "mmap", "caps"], "sparse": [{"offset": 0, "size": 1536 * MIB}], "offset": 4 << 40,
        "bar_register": "0x000000000000000c", "verdict": "ok", "reasons": [], "evidence": [
            "reports 2147483648 bytes, as usemem must.",
            "has 1610612736 bytes of usemem in one sparse area from its start.",
            "has the flags read, write, mmap, caps.",
            "its BAR register is 0x000000000000000c: 64 bits wide and prefetchable.",
            "its BAR register is 0x000000000000000c: aligned to its 2147483648 bytes.", "hole: as expected"]}
    assert [(region["name"], region["role"]) for region in judgement.regions] == [
        ("BAR0", "physical"), ("BAR2", "resmem"), ("BAR4", "usemem"), ("CONFIG", "config")]
