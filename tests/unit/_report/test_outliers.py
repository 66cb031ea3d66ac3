# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which GPUs differ from the others of their product, and when nobody can say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.outliers import Outlier, find_outliers
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.record import Record
from ansible_collections.nvgrace.passthrough.tests.unit._report.records import (
    ADDRESS,
    GIB,
    MIB,
    PRODUCT,
    device,
    gpu,
    record,
)

LINK = {"speed": 32.0, "width": 16, "max_speed": 32.0, "max_width": 16}


def hosts(count: int, **changes: Any) -> list[Record]:
    return [record(f"usual{number}", **changes) for number in range(count)]


@pytest.mark.parametrize(("odd", "expected"), [
    ({"devices": [device(memory=95 * GIB)]},
     [("GPU memory", "95 GiB (102005473280 bytes)", "96 GiB (103079215104 bytes)")]),
    ({"devices": [device(memory=96 * GIB - 4096)]},
     [("GPU memory", "96 GiB (103079211008 bytes)", "96 GiB (103079215104 bytes)")]),
    ({"gpus": [gpu(bars=[{"index": 0, "size": 16 * MIB}])]},
     [("the size of the BARs", "16 MiB", "16 MiB + 64 MiB")]),
    ({"gpus": [gpu(link={**LINK, "width": 8})]}, [("the width of the PCIe link", "x8", "x16")]),
    ({"gpus": [gpu(link={**LINK, "max_speed": 16.0})]},
     [("the highest speed of the PCIe link", "16 GT/s", "32 GT/s")]),
    ({"gpus": [gpu(link={**LINK, "speed": 2.5})]}, []),
    ({"devices": [device(driver="vfio_pci", srcversion="C3")]},
     [("the driver", "vfio_pci", "nvgrace_gpu_vfio_pci"),
      ("the version of the driver", "vfio_pci C3", "nvgrace_gpu_vfio_pci A1B2")]),
    ({"devices": [device(srcversion="C3")]},
     [("the version of the driver", "nvgrace_gpu_vfio_pci C3", "nvgrace_gpu_vfio_pci A1B2")]),
    ({"devices": [device(memory=None, srcversion=None)], "gpus": [gpu(link=None, bars=[])]}, []),
    ({"gpus": [gpu(product="GB200")], "devices": [device(memory=95 * GIB)]}, []),
])
def test_one_that_differs_from_three(odd: dict[str, Any], expected: list[tuple[str, str, str]]) -> None:
    found = find_outliers([*hosts(3), record("odd", **odd)])
    assert [(item.what, item.value, item.usual) for item in found] == expected
    assert all((item.host, item.address, item.product) == ("odd", ADDRESS, PRODUCT) for item in found)
    assert all((item.share, item.total) == (3, 4) for item in found)


@pytest.mark.parametrize(("usual", "odd", "found"), [
    (1, 1, False),
    (2, 0, False),
    (2, 1, True),
    (3, 2, False),
    (4, 2, True),
    (6, 4, False),
    (2, 2, False),
    (200, 100, True),
])
def test_two_of_three_must_agree(usual: int, odd: int, found: bool) -> None:
    other = [record(f"odd{number}", devices=[device(memory=95 * GIB)]) for number in range(odd)]
    assert [item.host for item in find_outliers([*hosts(usual), *other])] == [
        item.host for item in other if found]


def test_those_that_do_not_tell_are_not_counted() -> None:
    silent = [record(f"silent{number}", devices=[]) for number in range(5)]
    odd = record("odd", devices=[device(memory=95 * GIB)])
    memory = [item for item in find_outliers([*hosts(2), *silent, odd]) if item.what == "GPU memory"]
    assert [(item.host, item.share, item.total) for item in memory] == [("odd", 2, 3)]
    assert find_outliers(silent) == ()


def test_gpus_of_one_host_are_compared_too_and_come_in_order() -> None:
    addresses = [f"000{number}:01:00.0" for number in range(4)]
    sizes = (95, 96, 96, 96)
    found = find_outliers([record(gpus=[gpu(address) for address in addresses], devices=[
        device(address, memory=size * GIB) for address, size in zip(addresses, sizes)])])
    assert [item.address for item in found] == ["0000:01:00.0"]


@pytest.mark.parametrize("order", [lambda items: items, lambda items: items[::-1]])
def test_order_is_that_of_the_records(order: Callable[[list[Record]], list[Record]]) -> None:
    odd = [record(name, devices=[device(memory=95 * GIB)]) for name in ("a", "b")]
    assert [item.host for item in find_outliers(order([*odd, *hosts(4)]))] == [item.host for item in order(odd)]


def test_sentence() -> None:
    outlier = Outlier("grace1", ADDRESS, "GH200", "GPU memory", "95 GiB", "96 GiB", 3, 4)
    assert outlier.text == "GPU memory is 95 GiB; 3 of 4 GH200 in this fleet have 96 GiB."
