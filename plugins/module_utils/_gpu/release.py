# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planner: gives functions back exactly as their records say. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from .._core.plan import Plan, Step
from . import ops
from .binding import state_entry
from .files import ManagedFile, SharedFiles, modules_load_steps, rule_steps, udev_steps
from .model import PciFunction
from .record import BindingRecord, forget_step


@dataclass(frozen=True)
class ReleaseItem:
    """A recorded function. ``function`` is None where it left the host or another card sits in its slot now."""

    record: BindingRecord
    function: Optional[PciFunction]
    rule: ManagedFile
    timeout: float

    @property
    def leaves_driver(self) -> bool:
        return (self.function is not None and self.function.driver is not None
                and self.function.driver != self.record.previous_driver)

    @property
    def returns_to_driver(self) -> bool:
        return (self.function is not None and self.record.previous_driver is not None
                and self.function.driver != self.record.previous_driver)


def plan_release(items: Sequence[ReleaseItem], shared: SharedFiles) -> Plan:
    """Files first, so that a reboot in the middle does not bind again; then unbind all, then give all back; each record
    goes last, so that an interrupted run is finished by the next one."""
    file_steps = [step for item in items for step in rule_steps(item.record.address, item.rule, None)]
    steps: list[Step] = list(file_steps)
    steps += modules_load_steps(shared.modules_load, shared.other_modules)
    steps += udev_steps(shared, bool(file_steps))
    for item in items:
        steps += _unbind_steps(item)
    for item in items:
        steps += _return_steps(item)
    steps += [forget_step(item.record.address) for item in items]
    return Plan({"devices": [_entry(item, item.function, item.rule.content is not None) for item in items]},
                {"devices": [_after(item) for item in items]}, tuple(steps))


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
                "persistent": persistent}
    return state_entry(function, function.driver, function.driver_override, persistent)


def _after(item: ReleaseItem) -> dict[str, Any]:
    entry = _entry(item, item.function, False)
    if item.function is not None:
        entry["driver"] = item.record.previous_driver
        entry["driver_override"] = item.record.previous_override
    return entry
