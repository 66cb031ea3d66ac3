# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The arithmetic of the layouts, with the figures of the driver's contract."""

from __future__ import annotations

import struct

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.model import Bar
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.products import product_named
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.layout import (
    GIB,
    MIB,
    LayoutError,
    bar2,
    has_mig_bug,
    mainline,
    recognise,
    roundup_pow2,
)
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.predict import predict
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.uapi import Area, RegionInfo


@pytest.mark.parametrize(("memory", "usemem", "bar4", "resmem", "bar2_size"), [
    (96 * GIB, 95 * GIB, 128 * GIB, GIB, GIB),
    (144 * GIB, 143 * GIB, 256 * GIB, GIB, GIB),
    (65 * GIB + 256 * MIB, 64 * GIB, 128 * GIB, GIB + 256 * MIB, 2 * GIB),
    (2560 * MIB, 1536 * MIB, 2 * GIB, GIB, GIB),
    (2816 * MIB, 1536 * MIB, 2 * GIB, 1280 * MIB, 2 * GIB),
    (1536 * MIB, 512 * MIB, 512 * MIB, GIB, GIB),
])
def test_mainline_with_the_bug(memory: int, usemem: int, bar4: int, resmem: int, bar2_size: int) -> None:
    low, high = mainline(memory, True)
    assert (low.index, low.role, low.reported, low.actual) == (2, "resmem", bar2_size, resmem)
    assert (high.index, high.role, high.reported, high.actual) == (4, "usemem", bar4, usemem)


@pytest.mark.parametrize(("memory", "bar4"), [(186 * GIB, 256 * GIB), (279 * GIB, 512 * GIB), (1280 * MIB, 2 * GIB),
                                              (GIB, GIB), (GIB + 1, 2 * GIB)])
def test_mainline_without_the_bug(memory: int, bar4: int) -> None:
    (region,) = mainline(memory, False)
    assert (region.index, region.role, region.reported, region.actual) == (4, "usemem", bar4, memory)


@pytest.mark.parametrize(("memory", "text"), [
    (1, "1 bytes of GPU memory are too few: this GPU reserves 1073741824 of them."),
    (GIB - 1, "1073741823 bytes of GPU memory are too few"),
    (GIB, "1073741824 bytes of GPU memory leave no 536870912 bytes beside the reserved part."),
    (GIB + 512 * MIB - 1, "leave no 536870912 bytes")])
def test_too_little_memory(memory: int, text: str) -> None:
    """The driver says EOVERFLOW to the first two and EINVAL to the others."""
    with pytest.raises(LayoutError) as caught:
        mainline(memory, True)
    assert text in caught.value.message


def test_bar2() -> None:
    (region,) = bar2(96 * GIB)
    assert (region.index, region.reported, region.actual) == (2, 128 * GIB, 96 * GIB)


@pytest.mark.parametrize(("size", "expected"), [(1, 1), (2, 2), (3, 4), (GIB, GIB), (GIB + 1, 2 * GIB)])
def test_roundup(size: int, expected: int) -> None:
    assert roundup_pow2(size) == expected


def config(bit: int | None) -> bytes:
    data = bytearray(4096)
    if bit is not None:
        struct.pack_into("<IIIH", data, 0x100, 0x23 | 1 << 16, 0x10DE, 3, 0)
        struct.pack_into("<H", data, 0x10A, bit)
    return bytes(data)


@pytest.mark.parametrize(("data", "bug"), [(config(None), True), (config(0), True), (config(1), False),
                                           (config(0xFFFE), True), (bytes(64), None),
                                           (config(1)[:4095], None)])
def test_mig_bug(data: bytes, bug: bool | None) -> None:
    assert has_mig_bug(data) is bug


def region(index: int, *areas: Area, flags: int = 15) -> RegionInfo:
    return RegionInfo(index, flags, 1 << 30, index << 40, areas or None)


@pytest.mark.parametrize(("regions", "driver", "layout"), [
    ([region(2, Area(0, 4096)), region(4, Area(0, 4096))], "nvgrace_gpu_vfio_pci", "mainline"),
    ([region(4, Area(0, 4096))], "some_other_driver", "mainline"),
    ([region(2, Area(0, 4096)), region(4)], "nvgrace_gpu_vfio_pci", "bar2"),
    ([region(2), region(4)], "nvgrace_gpu_vfio_pci", "fallback"),
    ([], "nvgrace_gpu_vfio_pci", "fallback"),
    # forms that are no memory: behind a gap, in two parts, not mappable, in another region
    ([region(4, Area(4096, 4096))], "nvgrace_gpu_vfio_pci", "fallback"),
    ([region(4, Area(0, 4096), Area(8192, 4096))], "nvgrace_gpu_vfio_pci", "fallback"),
    ([region(4, Area(0, 4096), flags=11)], "nvgrace_gpu_vfio_pci", "fallback"),
    ([region(0, Area(0, 4096))], "nvgrace_gpu_vfio_pci", "fallback"),
    ([region(2), region(4)], "vfio-pci", "plain"),
    ([region(2, Area(0, 4096)), region(4, Area(0, 4096))], "vfio-pci", "plain"),
    ([region(4)], None, "fallback"),
])
def test_recognised(regions: list[RegionInfo], driver: str | None, layout: str) -> None:
    assert recognise(regions, driver) == layout


BARS = (Bar(0, 0x1000, 16 * MIB, 0x14220C), Bar(2, 0x2000, 32 * MIB, 0x14220C))


@pytest.mark.parametrize(("product", "memory", "layout", "bug", "source", "regions"), [
    ("gh200-120gb", None, "auto", None, "product", [(0, 16 * MIB), (2, GIB), (4, 128 * GIB)]),
    ("gb200", None, "auto", None, "product", [(0, 16 * MIB), (2, 32 * MIB), (4, 256 * GIB)]),
    ("gb200", 1280 * MIB, "mainline", False, "expected_memory", [(0, 16 * MIB), (2, 32 * MIB), (4, 2 * GIB)]),
    ("gh200-120gb", 2560 * MIB, "bar2", True, "expected_memory", [(0, 16 * MIB), (2, 4 * GIB)]),
    (None, None, "auto", True, "none", [(0, 16 * MIB), (2, 32 * MIB)]),
])
def test_prediction(product: str | None, memory: int | None, layout: str, bug: bool | None, source: str,
                    regions: list[tuple[int, int]]) -> None:
    predicted = predict(BARS, product_named(product) if product else None, memory, layout, bug)
    assert predicted.memory["source"] == source
    assert [(region["index"], region["reported"]) for region in predicted.regions] == regions
    assert {region["verdict"] for region in predicted.regions} == {"skipped"}
