# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules at their limits, and the views of a plan and of its XML beside each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Optional
from xml.etree import ElementTree

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.invariants import check_xml, violations
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.model import DomainPlan
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.planner import plan_domain
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.view import (
    QEMU,
    View,
    view_of_plan,
    view_of_xml,
)
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.domain_render import read_template, render
from ansible_collections.nvgrace.passthrough.tests.unit._domain.descriptions import CASES

GIB = 1 << 30
COMPAT = "gb200-2gpu-compat"
NATIVE = "gb300-4gpu-native"


def plan_of(case: str) -> DomainPlan:
    return plan_domain(**CASES[case]())


def view_of(case: str) -> View:
    return view_of_plan(plan_of(case))


def root_of(plan: DomainPlan) -> ElementTree.Element:
    return ElementTree.fromstring(render(plan, read_template()))


def broken(view: View) -> str:
    return " ".join(violations(view))


@pytest.mark.parametrize(("gib", "refused"), [(256, True), (512, False), (16384, False), (32768, True)])
def test_the_window_may_have_the_limits_themselves(gib: int, refused: bool) -> None:
    assert ("is not between 512 and 16384 GiB" in broken(replace(view_of(COMPAT), window=gib * GIB))) is refused


def test_an_expander_is_above_the_highest_controller_and_the_lowest_one_is_named() -> None:
    view = view_of(COMPAT)
    highest = max(item.index for item in view.controllers)
    first = min(item.bus_number for item in view.controllers if item.bus_number is not None)
    for number, refused in ((highest, True), (highest + 1, False)):
        moved = replace(view, controllers=tuple(
            replace(item, bus_number=number) if item.bus_number == first else item for item in view.controllers))
        sentence = f"the expander bus number {number} is not above the highest controller index, {highest}."
        assert (sentence in broken(moved)) is refused


def test_each_port_is_looked_at_also_behind_one_that_is_right() -> None:
    view = view_of(NATIVE)
    assert "reserves no bridge window" not in broken(view)
    assert "reserves no bridge window" in broken(replace(view, smmu_buses=view.smmu_buses[:1]))


def test_two_smmus_on_one_bus_are_one_too_many() -> None:
    view = view_of(NATIVE)
    assert "2 SMMUs are for PCI bus" in broken(replace(view, smmu_buses=(*view.smmu_buses, view.smmu_buses[0])))


def test_the_first_of_several_reasons_is_told_and_all_are_kept() -> None:
    root = root_of(plan_of(COMPAT))
    for item in root.iter(f"{QEMU}arg"):
        if item.get("value") == f"highmem-mmio-size={2 << 40}":
            item.set("value", "highmem-mmio-size=256G")
    source = root.findall("devices/hostdev/source/address")
    source[1].attrib.update(source[0].attrib)
    with pytest.raises(PassthroughError) as caught:
        check_xml("vm", ElementTree.tostring(root, encoding="unicode"))
    reasons = caught.value.details["broken"]
    assert len(reasons) == 2
    assert "256" not in reasons[1] and reasons[0] in caught.value.message and reasons[1] not in caught.value.message


@pytest.mark.parametrize(("path", "taken"), [
    ("/opt/qemu/bin/qemu-system-aarch64", "/opt/qemu/bin/qemu-system-aarch64"),
    (None, "/usr/bin/qemu-system-aarch64"),
])
def test_the_emulator_of_the_host_is_taken_and_there_is_one_without(path: Optional[str], taken: str) -> None:
    case: dict[str, Any] = CASES[COMPAT]()
    host = {**case["host"], "qemu": {**case["host"]["qemu"], "path": path}}
    assert plan_domain(**{**case, "host": host}).emulator == taken
    assert plan_domain(**{**case, "host": host, "vm": {**case["vm"], "profile": "compat"}}).emulator == taken


def test_another_property_of_a_port_is_no_reserve() -> None:
    plan = plan_of(COMPAT)
    first, *rest = plan.overrides
    changed = replace(plan, overrides=(replace(first, properties=(("io-reserve", 0),)), *rest))
    for view in (view_of_plan(changed), view_of_xml(root_of(changed))):
        assert list(view.reserves) == [override.alias for override in rest]


@pytest.mark.parametrize("case", sorted(CASES))
def test_plan_and_xml_have_the_same_devices_and_reserves(case: str) -> None:
    plan = plan_of(case)
    planned, rendered = view_of_plan(plan), view_of_xml(root_of(plan))
    assert {(device.kind, device.address) for device in planned.devices} <= {
        (device.kind, device.address) for device in rendered.devices}
    kinds = {device.kind for device in planned.devices}
    assert ("disk" in kinds, "interface" in kinds) == (bool(plan.disks), bool(plan.interfaces))
    assert sorted(planned.reserves) == sorted(rendered.reserves)
