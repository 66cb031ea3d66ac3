# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Typed wishes -> kernel arguments, by processor."""

from __future__ import annotations

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.arguments import (
    CHOICES,
    UNMANAGED,
    Platform,
    kernel_arguments,
)


@pytest.mark.parametrize(("processor", "iommu", "cmdline", "wish", "arguments"), [
    ("intel", False, (), "auto", ("intel_iommu=on",)),
    ("intel", True, (), "auto", ()),
    ("intel", True, ("intel_iommu=on",), "auto", ("intel_iommu=on",)),
    ("intel", True, (), "enabled", ("intel_iommu=on",)),
    ("intel", False, (), "unmanaged", ()),
    ("amd", False, (), "auto", ()),
    ("amd", False, (), "enabled", ()),
    ("arm", False, (), "auto", ()),
    ("other", False, (), "enabled", ()),
])
def test_iommu(processor, iommu, cmdline, wish, arguments):
    assert kernel_arguments((), {"iommu": wish}, Platform(processor, iommu, cmdline)) == arguments


@pytest.mark.parametrize(("wishes", "arguments"), [
    ({}, ()),
    ({"iommu_passthrough": "enabled"}, ("iommu.passthrough=1",)),
    ({"iommu_passthrough": "disabled"}, ("iommu.passthrough=0",)),
    ({"iommu_strict": "disabled"}, ("iommu.strict=0",)),
    ({"init_on_alloc": "disabled", "numa_balancing": "disabled"}, ("init_on_alloc=0", "numa_balancing=disable")),
    ({"init_on_alloc": "enabled", "numa_balancing": "enabled"}, ("init_on_alloc=1", "numa_balancing=enable")),
    ({"transparent_hugepage": "madvise", "preempt": "none"}, ("transparent_hugepage=madvise", "preempt=none")),
    ({"pci_realloc": "enabled", "pcie_bus": "perf"}, ("pci=pcie_bus_perf,realloc=on",)),
    ({"pci_realloc": "disabled"}, ("pci=realloc=off",)),
    ({"pcie_bus": "safe"}, ("pci=pcie_bus_safe",)),
    ({"power_cap": "enabled"}, ("acpi_power_meter.force_cap_on=y",)),
    (dict.fromkeys(CHOICES, UNMANAGED), ()),
])
def test_each_wish_on_arm(wishes, arguments):
    assert kernel_arguments((), wishes, Platform("arm", True, ())) == arguments


def test_power_cap_is_for_arm_only():
    assert kernel_arguments((), {"power_cap": "enabled"}, Platform("amd", True, ())) == ()


def test_raw_arguments_follow_and_are_not_repeated():
    raw = ("video=efifb:off", "init_on_alloc=0")
    found = kernel_arguments(raw, {"init_on_alloc": "disabled"}, Platform("arm", True, ()))
    assert found == ("init_on_alloc=0", "video=efifb:off")


@pytest.mark.parametrize(("raw", "wishes"), [
    ("iommu.passthrough=1", {"iommu_passthrough": "disabled"}), ("pci=noaer", {"pci_realloc": "enabled"}),
])
def test_contradiction_is_refused(raw, wishes):
    with pytest.raises(PassthroughError, match=f"kernel_arguments has {raw}, and kernel_settings means"):
        kernel_arguments((raw,), wishes, Platform("arm", True, ()))
