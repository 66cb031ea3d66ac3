# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planner: gives functions back exactly as their records say. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from .._core.plan import Plan, RunCommand, Step
from . import nodes, ops
from .binding import state_entry
from .files import ManagedFile, SharedFiles, modules_load_steps, rule_steps, udev_steps
from .model import PciFunction
from .record import BindingRecord, forget_step


@dataclass(frozen=True)
class ReleaseItem:
    """A recorded function. ``function`` is None where it left the host or another card sits in its slot now. ``load``:
    the module of its previous driver, where that is not loaded."""

    record: BindingRecord
    function: Optional[PciFunction]
    rule: ManagedFile
    timeout: float
    load: Optional[str] = None

    @property
    def leaves_driver(self) -> bool:
        return (self.function is not None and self.function.driver is not None
                and self.function.driver != self.record.previous_driver)

    @property
    def returns_to_driver(self) -> bool:
        return (self.function is not None and self.record.previous_driver is not None
                and self.function.driver != self.record.previous_driver)


def plan_release(items: Sequence[ReleaseItem], shared: SharedFiles) -> Plan:
    """What could fail goes first: the modules of the previous drivers. Then the files, so that a reboot in the middle
    does not bind again; then unbind all, then give all back; each record goes last, so that an interrupted run is
    finished by the next one."""
    steps: list[Step] = [*load_steps(items)]
    file_steps = [step for item in items for step in rule_steps(item.record.address, item.rule, None)]
    steps += file_steps
    steps += modules_load_steps(shared.modules_load, shared.other_modules)
    steps += udev_steps(shared, bool(file_steps))
    for item in items:
        steps += _unbind_steps(item)
    for item in items:
        steps += _return_steps(item)
    for item in items:
        steps += _node_steps(item, shared.udev)
    steps += [forget_step(item.record.address) for item in items]
    return Plan({"devices": [_entry(item, item.function, item.rule.content is not None) for item in items]},
                {"devices": [_after(item) for item in items]}, tuple(steps))


def load_steps(items: Sequence[ReleaseItem]) -> list[RunCommand]:
    """modprobe for each previous driver that is gone, as it is after a reboot where something keeps it from loading."""
    return [RunCommand(("modprobe", module), why="load the previous driver", timeout=120)
            for module in sorted({item.load for item in items if item.load})]


def _node_steps(item: ReleaseItem, udev: bool) -> list[Step]:
    """Only where the previous driver is a VFIO driver, too: else the nodes went with the unbind."""
    if item.function is None or item.record.device_group is None or item.leaves_driver:
        return []
    text = f"take the device nodes of {item.record.address} from the group {item.record.device_group}"
    return [ops.device_step(text, nodes.take_back, _device(item, item.function), udev)]


def _unbind_steps(item: ReleaseItem) -> list[Step]:
    if item.function is None or not item.leaves_driver:
        return []
    text = f"unbind {item.record.address} from {item.function.driver}"
    return [ops.device_step(text, ops.unbind, _device(item, item.function))]


def _return_steps(item: ReleaseItem) -> list[Step]:
    if item.function is None:
        return []
    address, record, device = item.record.address, item.record, _device(item, item.function)
    steps: list[Step] = []
    if item.function.driver_override != record.previous_override:
        text = f"set driver_override of {address} to {record.previous_override or 'nothing'}"
        steps.append(ops.device_step(text, ops.set_override, device, record.previous_override))
    if item.returns_to_driver:
        text = f"bind {address} to {record.previous_driver}"
        steps.append(ops.device_step(text, ops.bind, device, record.previous_driver))
    return steps


def _device(item: ReleaseItem, function: PciFunction) -> ops.Device:
    return ops.Device(function.identity, function.group, item.timeout)


def _entry(item: ReleaseItem, function: Optional[PciFunction], persistent: bool) -> dict[str, Any]:
    if function is None:
        return {"address": item.record.address, "group": None, "driver": None, "driver_override": None,
                "persistent": persistent, "device_group": None}
    return state_entry(function, function.driver, function.driver_override, persistent, item.record.device_group)


def _after(item: ReleaseItem) -> dict[str, Any]:
    entry = _entry(item, item.function, False)
    if item.function is not None:
        entry["driver"] = item.record.previous_driver
        entry["driver_override"] = item.record.previous_override
        entry["device_group"] = None
    return entry
