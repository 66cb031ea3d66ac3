# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Requests: products, faults, names, and where the GPUs of a host end up."""

from __future__ import annotations

import re

import pytest
from nvlab.errors import UsageError
from nvlab.products import (
    FIRST_MEMORY_BASE,
    MAX_GPUS,
    MEMORY_STRIDE,
    PRODUCTS,
    Faults,
    all_functions,
    find_product,
    node_distance,
    parse_faults,
    place_gpus,
    split_faults,
)
from nvlab.spec import make_spec

GOOD = {"name": "grace", "arch": "arm64", "kernel": "7.3", "product": "gh200-120gb", "gpus": 1, "faults": []}


@pytest.mark.parametrize(("name", "device", "flags", "bars", "only_arch"), [
    ("gh200-120gb", 0x2342, None, [0], None),
    ("gh200-480gb", 0x2345, None, [0], None),
    ("gh200-144gb", 0x2348, None, [0], None),
    ("gb200", 0x2941, 1, [0, 2], None),
    ("gb300", 0x31C2, 1, [0, 2], None),
    ("vera-cxl", 0x3041, 1, [0, 2], None),
    ("h100-pcie", 0x2331, None, [0, 2, 4], "amd64"),
    ("rtx-audio", 0x26B1, None, [0, 1, 3], "amd64"),
])
def test_products(name: str, device: int, flags: int | None, bars: list[int], only_arch: str | None) -> None:
    product = find_product(name)
    assert (product.device_id, product.dvsec_flags, product.only_arch) == (device, flags, only_arch)
    assert [bar.index for bar in product.bars] == bars


@pytest.mark.parametrize("product", [product for product in PRODUCTS.values() if product.memory],
                         ids=lambda product: product.name)
def test_memory_is_what_the_driver_needs(product) -> None:
    assert product.memory & (product.memory - 1), "a power of two would hide the difference of the two sizes"
    assert product.memory <= MEMORY_STRIDE
    if product.dvsec_flags is None:
        assert product.memory > 1536 << 20, "1 GiB of resmem and one 512 MiB step of usemem"


@pytest.mark.parametrize(("words", "faults"), [
    ([], Faults()),
    (["no-properties"], Faults(no_properties=True)),
    (["size-zero", "no-iommu"], Faults(size_zero=True, no_iommu=True)),
    (["c2c-down", "range-in-ram"], Faults(c2c_down=True, range_in_ram=True)),
    (["ready-after=5"], Faults(ready_after=5.0)),
    (["odd-size"], Faults(odd_size=True)),
    (["small-bar0", "size-zero"], Faults(small_bar0=True, size_zero=True)),
    (["base-in-page"], Faults(base_in_page=True)),
    (["range-unreachable"], Faults(range_unreachable=True)),
    (["range-wraps", "c2c-down"], Faults(range_wraps=True, c2c_down=True)),
])
def test_faults(words: list[str], faults: Faults) -> None:
    assert parse_faults(words) == faults
    assert parse_faults(faults.words()) == faults


@pytest.mark.parametrize(("words", "message"), [
    (["c2c"], "no fault 'c2c'"),
    (["c2c-down=1"], "c2c-down takes no value"),
    (["ready-after"], "whole seconds"),
    (["ready-after=soon"], "whole seconds"),
    (["ready-after=0"], "whole seconds"),
    (["no-properties", "size-zero"], "no-properties and size-zero contradict"),
    (["small-bar0", "c2c-down"], "c2c-down and small-bar0 contradict"),
    (["odd-size", "range-wraps"], "odd-size and range-wraps contradict"),
    (["ready-after=5", "c2c-down"], "c2c-down and ready-after contradict"),
])
def test_bad_faults(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        parse_faults(words)


@pytest.mark.parametrize(("words", "common", "own"), [
    ([], Faults(), [Faults(), Faults()]),
    (["c2c-down"], Faults(c2c_down=True), [Faults(c2c_down=True)] * 2),
    (["1:size-zero"], Faults(), [Faults(), Faults(size_zero=True)]),
    (["shared-group", "0:ready-after=7", "1:odd-size"], Faults(shared_group=True),
     [Faults(shared_group=True, ready_after=7.0), Faults(shared_group=True, odd_size=True)]),
])
def test_faults_of_single_gpus(words: list[str], common: Faults, own: list[Faults]) -> None:
    assert split_faults(words, 2) == (common, tuple(own))


@pytest.mark.parametrize(("words", "message"), [
    (["2:size-zero"], "'2:size-zero' is for a GPU that the lab does not have: 0 to 1 exist"),
    (["x:size-zero"], "'x:size-zero' is for a GPU"),
    (["1:no-iommu"], "no-iommu is one of the whole host; leave out '1:'"),
    (["no-properties", "0:size-zero"], "no-properties and size-zero contradict"),
    (["1:smoke"], "no fault 'smoke'"),
])
def test_bad_faults_of_single_gpus(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        split_faults(words, 2)


@pytest.mark.parametrize(("change", "message"), [
    ({"name": "Grace!"}, "no name for a lab"),
    ({"name": "../etc"}, "no name for a lab"),
    ({"arch": "riscv64"}, "no architecture 'riscv64'; the lab knows arm64, amd64"),
    ({"kernel": "5.10"}, "no kernel '5.10'; the lab knows 7.3, 6.12"),
    ({"product": "h100"}, "no product 'h100'; the lab knows gh200-120gb,"),
    ({"gpus": 0}, "1 to 5 GPUs, not 0"),
    ({"gpus": MAX_GPUS + 1}, "1 to 5 GPUs, not 6"),
    ({"faults": ["x"]}, "no fault 'x'"),
    ({"product": "h100-pcie"}, "'h100-pcie' is for amd64 hosts; add --arch amd64"),
    ({"product": "h100-pcie", "arch": "amd64", "faults": ["size-zero"]}, "size-zero is one of a GPU with coherent"),
    ({"hotplug": True}, "gh200-120gb is no card that can be taken out; --hotplug is for h100-pcie, rtx-audio"),
    ({"product": "h100-pcie", "arch": "amd64", "hotplug": True, "faults": ["shared-group"]}, "one into each"),
    ({"boot": "lilo"}, "no boot 'lilo'; the lab knows direct, firmware, systemd-boot"),
    ({"secure_boot": True}, "add --boot firmware"),
    ({"secure_boot": True, "boot": "systemd-boot"}, "add --boot firmware"),
    ({"kernel": "6.1", "boot": "firmware"}, "booted directly only; firmware boots 7.3, 6.12"),
    ({"kernel": "debug", "arch": "amd64", "boot": "firmware"}, "booted directly only"),
    ({"snapshots": True, "boot": "firmware"}, "cannot be saved"),
])
def test_bad_requests(change: dict[str, object], message: str) -> None:
    make_spec(**GOOD)
    with pytest.raises(UsageError, match=re.escape(message)):
        make_spec(**{**GOOD, **change})


@pytest.mark.parametrize(("count", "nodes"), [
    (1, [(1, 2, 3, 4, 5, 6, 7, 8)]),
    (2, [(1, 2, 3, 4, 5, 6, 7), (8, 9, 10, 11, 12, 13, 14)]),
    (4, [(1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12)]),
])
def test_nodes_fit_debian_kernels(count: int, nodes: list[tuple[int, ...]]) -> None:
    gpus = place_gpus(find_product("gh200-144gb"), count)
    assert [gpu.nodes for gpu in gpus] == nodes
    assert max(max(group) for group in nodes) < 16


def test_places() -> None:
    gpus = place_gpus(find_product("gb200"), 3)
    assert [gpu.address for gpu in gpus] == ["0000:00:10.0", "0000:00:11.0", "0000:00:12.0"]
    assert {gpu.pci_id for gpu in gpus} == {"10de:2941"}
    assert [gpu.memory_base for gpu in gpus] == [FIRST_MEMORY_BASE + index * MEMORY_STRIDE for index in range(3)]


@pytest.mark.parametrize(("one", "other", "distance"), [(0, 0, 10), (3, 3, 10), (0, 9, 80), (9, 0, 80), (1, 7, 11),
                                                        (1, 8, 120), (14, 8, 11)])
def test_distances(one: int, other: int, distance: int) -> None:
    assert node_distance(place_gpus(find_product("gb200"), 2), one, other) == distance


@pytest.mark.parametrize(("product", "faults", "hotplug", "addresses"), [
    ("h100-pcie", [], False, ["0000:00:10.0", "0000:00:11.0"]),
    ("h100-pcie", [], True, ["0000:01:00.0", "0000:02:00.0"]),
    ("rtx-audio", [], False, ["0000:00:10.0", "0000:00:10.1", "0000:00:11.0", "0000:00:11.1"]),
    ("rtx-audio", ["shared-group"], False, ["0000:00:10.0", "0000:00:10.1", "0000:00:10.2", "0000:00:10.3"]),
    ("rtx-audio", [], True, ["0000:01:00.0", "0000:01:00.1", "0000:02:00.0", "0000:02:00.1"]),
])
def test_cards(product: str, faults: list[str], hotplug: bool, addresses: list[str]) -> None:
    spec = make_spec("grace", "amd64", "7.3", product, 2, faults, hotplug=hotplug)
    functions = all_functions(spec.gpus)
    assert [function.address for function in functions] == addresses
    assert len({function.name for function in functions}) == len(functions)
    assert {function.index for function in functions} == {0, 1}
    assert not any(function.nodes or function.product.memory for function in functions)
