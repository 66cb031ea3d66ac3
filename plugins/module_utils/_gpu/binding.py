# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planner: from functions as they are to functions bound to their VFIO driver. Pure: no look at the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from .._core.plan import Plan, Step
from .._core.runner import plan_result
from . import group as groups
from . import nodes, ops
from .files import ManagedFile, SharedFiles, modules_load_steps, rule_steps, udev_steps
from .model import PciFunction
from .persist import rule_content
from .record import BindingRecord, save_step


@dataclass(frozen=True)
class BindItem:
    """A function, what is known of it, and the driver that it shall have. ``timeout`` in seconds."""

    function: PciFunction
    record: Optional[BindingRecord]
    rule: ManagedFile
    driver: str
    module: str
    timeout: float
    persistent: bool = True
    companion_of: tuple[str, ...] = ()
    previous_module: Optional[str] = None
    device_group: Optional[nodes.NodeGroup] = None
    present_nodes: tuple[nodes.DeviceNode, ...] = ()

    @property
    def device(self) -> ops.Device:
        return ops.Device(self.function.identity, self.function.group, self.timeout)

    @property
    def needs_bind(self) -> bool:
        return self.function.driver != self.driver

    @property
    def group_name(self) -> Optional[str]:
        return self.device_group.name if self.device_group else None

    def wanted_record(self) -> BindingRecord:
        """The record after the run: what was before us comes from the first run with this card in the slot."""
        identity = self.function.identity
        known = self.record if self.record and self.record.vendor_device == identity.vendor_device else None
        return BindingRecord(
            address=identity.address, vendor=identity.vendor, device=identity.device,
            driver=self.driver, module=self.module,
            previous_driver=known.previous_driver if known else self.function.driver,
            previous_override=known.previous_override if known else self.function.driver_override,
            persistent=self.persistent, companion_of=self.companion_of,
            previous_module=known.previous_module if known else self.previous_module,
            group=self.function.group, device_group=self.group_name)

    def wanted_rule(self) -> Optional[bytes]:
        if not self.persistent:
            return None
        return rule_content(self.function.identity, self.driver, self.module, self.group_name)


def plan_bind(items: Sequence[BindItem], shared: SharedFiles, allowed: frozenset[str]) -> Plan:
    """All functions of all groups: first each one is recorded, then all leave their drivers, then all are bound.

    The files that bind again at boot come last: a bind that brings the host down must not happen at each boot.
    """
    steps: list[Step] = [save_step(item.wanted_record()) for item in items if item.record != item.wanted_record()]
    for item in items:
        if item.needs_bind and item.function.driver is not None:
            steps.append(ops.device_step(f"unbind {item.function.address} from {item.function.driver}", ops.unbind,
                                         item.device))
    for item in items:
        steps += _bind_steps(item, allowed)
    file_steps = [step for item in items for step in rule_steps(item.function.address, item.rule, item.wanted_rule())]
    steps += file_steps
    modules = shared.other_modules | {item.module for item in items if item.persistent}
    steps += modules_load_steps(shared.modules_load, modules)
    steps += udev_steps(shared, bool(file_steps))
    for item in items:
        steps += _node_steps(item, shared.udev)
    return Plan({"devices": [_before(item) for item in items]}, {"devices": [_after(item) for item in items]},
                tuple(steps))


def _bind_steps(item: BindItem, allowed: frozenset[str]) -> list[Step]:
    address, device = item.function.address, item.device
    steps: list[Step] = []
    if item.function.driver_override != item.driver:
        steps.append(ops.device_step(f"set driver_override of {address} to {item.driver}", ops.set_override, device,
                                     item.driver))
    if item.needs_bind:
        steps.append(ops.device_step(f"bind {address} to {item.driver}", ops.probe, device, item.driver))
        steps.append(ops.device_step(f"check that {address} is a VFIO device", ops.require_vfio, device))
        if item.function.group is None:
            steps.append(ops.device_step(f"check the new IOMMU group of {address}", groups.check_new_group, device,
                                         allowed))
    return steps


def _node_steps(item: BindItem, udev: bool) -> list[Step]:
    """Last, because udev has to know the rules of the files."""
    address, device, group = item.function.address, item.device, item.device_group
    if group is not None and (item.needs_bind or not nodes.have_group(item.present_nodes, group)):
        return [ops.device_step(f"give the device nodes of {address} to the group {group.name}", nodes.give, device,
                                group, item.persistent, udev)]
    if group is None and item.present_nodes and item.record is not None and item.record.device_group is not None:
        return [ops.device_step(f"take the device nodes of {address} from the group {item.record.device_group}",
                                nodes.take_back, device, udev)]
    return []


def _before(item: BindItem) -> dict[str, Any]:
    function = item.function
    group = item.record.device_group if item.record and item.present_nodes else None
    return state_entry(function, function.driver, function.driver_override, item.rule.content is not None, group)


def _after(item: BindItem) -> dict[str, Any]:
    return state_entry(item.function, item.driver, item.driver, item.persistent, item.group_name)


def state_entry(function: PciFunction, driver: Optional[str], override: Optional[str],
                persistent: bool, device_group: Optional[str]) -> dict[str, Any]:
    """One side of the diff for one function."""
    return {"address": function.address, "group": function.group, "driver": driver, "driver_override": override,
            "persistent": persistent, "device_group": device_group}


def driver_result(plan: Plan) -> dict[str, Any]:
    """The part of gpu_driver's result that binding and giving back have in common."""
    before = {entry["address"]: entry for entry in plan.before["devices"]}
    devices = []
    for after in plan.after["devices"]:
        was = before.get(after["address"], after)
        devices.append({
            "address": after["address"],
            "group": after["group"],
            "persistent": after["persistent"],
            "device_group": after["device_group"],
            "before": {"driver": was["driver"], "driver_override": was["driver_override"]},
            "after": {"driver": after["driver"], "driver_override": after["driver_override"]},
        })
    return {**plan_result(plan, plan.actions()), "devices": devices}
