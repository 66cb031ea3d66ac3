# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which functions the shared ``gpus`` option means."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.group import allowed_addresses
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.model import PciIdentity, parse_address
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.select import parse_requests, select_gpus

GPU_A = PciIdentity("0008:01:00.0", "10de", "2941", 0x030200)
GPU_B = PciIdentity("0009:01:00.0", "10de", "2941", 0x030200)
HOPPER = PciIdentity("0019:01:00.0", "10de", "2342", 0x030200)
NIC = PciIdentity("0000:03:00.0", "15b3", "101e", 0x020000)
NVSWITCH = PciIdentity("0000:05:00.0", "10de", "22a3", 0x068000)
ALL = {item.address: item for item in (NIC, GPU_B, GPU_A, HOPPER, NVSWITCH)}


@pytest.mark.parametrize(("items", "expected"), [
    (None, ["0008:01:00.0", "0009:01:00.0", "0019:01:00.0"]),
    ([{"address": "0009:01:00.0"}], ["0009:01:00.0"]),
    ([{"address": " 0009:01:00.0 "}], ["0009:01:00.0"]),
    ([{"vendor_device": "10DE:2941"}], ["0008:01:00.0", "0009:01:00.0"]),
    ([{"vendor_device": "10de:2941", "count": 2}], ["0008:01:00.0", "0009:01:00.0"]),
    ([{"address": "0019:01:00.0"}, {"vendor_device": "10de:2941"}],
     ["0008:01:00.0", "0009:01:00.0", "0019:01:00.0"]),
    ([], []),
])
def test_selects(items: Any, expected: list[str]) -> None:
    assert [gpu.address for gpu in select_gpus(parse_requests(items), ALL)] == expected


@pytest.mark.parametrize(("items", "sentence"), [
    ([{"address": "01:00.0"}], "give the full form with domain"),
    ([{"address": "0009:01:00.8"}], "is not a PCI address"),
    ([{"address": "../../etc"}], "is not a PCI address"),
    ([{"address": "0009:01:00.0\0"}], "is not a PCI address"),
    ([{"address": "0009:99:00.0"}], "There is no PCI function 0009:99:00.0 on this host"),
    ([{"address": "0000:03:00.0"}], "0000:03:00.0 (15b3:101e, other) is not an NVIDIA GPU"),
    ([{"address": "0000:05:00.0"}], "is not an NVIDIA GPU"),
    ([{"vendor_device": "nvidia"}], "is no vendor and device id"),
    ([{"vendor_device": "10de:31c2"}], "wants at least 1 of 10de:31c2 and this host has 0 (none)"),
    ([{"vendor_device": "10de:2941", "count": 4}], "wants 4 of 10de:2941 and this host has 2"),
    ([{"vendor_device": "10de:2941", "count": 1}], "wants 1 of 10de:2941 and this host has 2"),
    ([{"vendor_device": "10de:2941", "count": 0}], "count is 0"),
    ([{"address": "0009:01:00.0"}, {"vendor_device": "10de:2941"}], "0009:01:00.0 is listed twice"),
    ([{"address": "0009:01:00.0", "expected_memory": -1}], "expected_memory is -1"),
    ([{"address": "0009:01:00.0", "product": "h100"}], "'h100' is no known product"),
])
def test_refuses(items: Any, sentence: str) -> None:
    with pytest.raises(PassthroughError) as caught:
        select_gpus(parse_requests(items), ALL)
    assert sentence in caught.value.message


def test_a_host_without_a_gpu_is_an_error() -> None:
    with pytest.raises(PassthroughError, match="No NVIDIA GPU was found"):
        select_gpus(None, {NIC.address: NIC})


def test_items_carry_expectations() -> None:
    requests = parse_requests([{"address": HOPPER.address, "expected_memory": 2684354560, "product": "gh200-144gb"}])
    (gpu,) = select_gpus(requests, ALL)
    assert gpu.expected_memory == 2684354560
    assert gpu.product is not None and gpu.product.key == "gh200-144gb"


@pytest.mark.parametrize(("class_code", "kind"), [
    (0x030000, "gpu"), (0x030200, "gpu"), (0x040300, "audio"), (0x0C0330, "usb"), (0x060400, "bridge"),
    (0x060000, "bridge"), (0x068000, "nvswitch"), (0x0C8000, "usb-c"), (0x010802, "other"),
])
def test_kind(class_code: int, kind: str) -> None:
    assert PciIdentity("0000:00:00.0", "10de", "0000", class_code).kind == kind


def test_the_names_of_nvidias_kinds_are_for_its_own_devices() -> None:
    for class_code in (0x068000, 0x0C8000):
        assert PciIdentity("0000:00:00.0", "8086", "0000", class_code).kind == "other"


def test_address_is_made_lower_case() -> None:
    assert parse_address("000A:0B:1F.7") == "000a:0b:1f.7"


def test_only_what_was_selected_or_consented_to_may_be_bound() -> None:
    """Not the rest of the host, and no consent for a function that is not there."""
    assert allowed_addresses([GPU_A.address], [NIC.address, "0000:99:00.0"], ALL) == {GPU_A.address, NIC.address}
