# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What gpu_driver does to give back: reads the host and the records, asks the planner, carries the plan out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Optional

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.plan import Plan, RunCommand, apply_plan
from . import files, sysfs
from .binding import driver_result
from .busy import require_free
from .domains import domains_by_function
from .options import DriverOptions
from .record import load_records
from .release import ReleaseItem, load_steps, plan_release
from .select import parse_requests, select_gpus


def release_gpus(host: Host, options: DriverOptions) -> dict[str, Any]:
    """Gives back recorded functions: the selected GPUs with their companions, or all of them; the module's result."""
    records = load_records(host)
    addresses = _addresses_to_release(host, options, set(records))
    addresses |= {address for address, record in records.items()
                  if record.companion_of and addresses.issuperset(record.companion_of)}
    identities = sysfs.list_identities(host)
    items, warnings = [], []
    for address in sorted(addresses):
        identity = identities.get(address)
        same = identity is not None and identity.vendor_device == records[address].vendor_device
        if not same:
            there = "nothing is" if identity is None else f"{identity.vendor_device} is"
            warnings.append(f"{address} was {records[address].vendor_device} when it was bound and {there} there now: "
                            "only its files are given back.")
        item = ReleaseItem(records[address], sysfs.read_function(host, address) if same else None,
                           files.read_rule(host, address), options.timeout)
        items.append(replace(item, load=_module_to_load(host, item)))
    require_free(host, [item.function for item in items if item.function and item.leaves_driver], options)
    plan = plan_release(items, files.read_shared(host, addresses)) if items else Plan({"devices": []}, {"devices": []})
    if options.check_mode:
        _try_loading(host, load_steps(items))
    elif plan.changed:
        apply_plan(host, plan)
    return {**driver_result(plan), "warnings": warnings + _warnings(host, items, set(records) - addresses)}


def _warnings(host: Host, items: Sequence[ReleaseItem], bound: set[str]) -> list[str]:
    """What the operator should know although the run succeeded; ``bound`` are the functions that stay as they are."""
    found, domains = [], domains_by_function(host)
    for item in items:
        found += [f"{other} stays bound and shares its IOMMU group with {item.record.address}, which goes back to the "
                  "host: no VM can have it meanwhile." for other in _left_in_its_group(host, item, bound)]
        found += [f"The domain {name} still passes {item.record.address} through, which goes back to the host: "
                  "starting it fails, or takes the GPU from the host where it is managed; take it out of the domain."
                  for name in domains.get(item.record.address, ())]
    return found


def _left_in_its_group(host: Host, item: ReleaseItem, bound: set[str]) -> list[str]:
    """Those of the functions that stay bound that can go to a VM only together with the one that is given back."""
    if item.function is None or item.function.group is None or item.record.previous_driver is None:
        return []
    return [address for address in sorted(bound) if sysfs.read_group_number(host, address) == item.function.group]


def _module_to_load(host: Host, item: ReleaseItem) -> Optional[str]:
    """The module of the previous driver where it is gone. Raises where the record does not know which one that is."""
    driver = item.record.previous_driver
    if not item.returns_to_driver or driver is None or sysfs.has_driver(host, driver):
        return None
    if item.record.previous_module is None:
        raise PassthroughError(f"{item.record.address} cannot go back to {driver}, which is not loaded: load its "
                               "module, then run again. Nothing was changed.")
    return item.record.previous_module


def _try_loading(host: Host, steps: Iterable[RunCommand]) -> None:
    for step in steps:
        host.run(("modprobe", "--dry-run", step.argv[-1]), timeout=step.timeout)


def _addresses_to_release(host: Host, options: DriverOptions, recorded: set[str]) -> set[str]:
    """A GPU that left the host can still be given back by its address, because its record names it."""
    requests = parse_requests(options.gpus)
    if requests is None:
        return set(recorded)
    known = {request.address for request in requests if request.address in recorded}
    unknown = [request for request in requests if request.address not in known]
    found = {gpu.address for gpu in select_gpus(unknown, sysfs.list_identities(host))} if unknown else set()
    return {address for address in known if address is not None} | (found & recorded)
