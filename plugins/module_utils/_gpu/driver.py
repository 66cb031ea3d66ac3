# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What gpu_driver does: reads the host, asks the planners, carries the plan out or rolls it back."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.plan import Plan, RunCommand, apply_plan
from .._core.runner import plan_result
from . import files, sysfs
from .binding import BindItem, plan_bind
from .group import allowed_addresses, companions, require_iommu, require_isolation
from .holders import UsageReader
from .model import PciFunction, PciIdentity, parse_address
from .numa import generic_initiator_nodes
from .record import load_record, load_records
from .release import ReleaseItem, plan_release
from .rollback import roll_back
from .select import SelectedGpu, parse_requests, select_gpus
from .variant import PlannedModule, Variant, VariantChooser

_DRIVER_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class DriverOptions:
    """The module's options after validation. ``timeout`` in seconds."""

    gpus: Optional[Sequence[Mapping[str, Any]]]
    driver: str = "auto"
    persistent: bool = True
    consent: frozenset[str] = frozenset()
    wait: bool = False
    timeout: float = 60
    planned: tuple[PlannedModule, ...] = ()
    check_mode: bool = False


def parse_options(params: Mapping[str, Any], check_mode: bool) -> DriverOptions:
    """Raises PassthroughError for values that the argument spec cannot refuse."""
    if params["driver"] != "auto" and not _DRIVER_NAME.fullmatch(params["driver"]):
        raise PassthroughError(f"{params['driver']!r} is no driver name: use auto, or a name such as vfio-pci.")
    if params["timeout"] < 1:
        raise PassthroughError(f"timeout is {params['timeout']}: give at least 1 second.")
    planned = tuple(PlannedModule(item["module"], item["driver"], tuple(item["aliases"]))
                    for item in params["planned_modules"] or ()) if check_mode else ()
    return DriverOptions(
        gpus=params["gpus"], driver=params["driver"], persistent=params["persistent"],
        consent=frozenset(parse_address(text) for text in params["group_consent"] or ()),
        wait=params["in_use"] == "wait", timeout=params["timeout"], planned=planned, check_mode=check_mode)


def bind_gpus(host: Host, options: DriverOptions) -> dict[str, Any]:
    """Binds the selected GPUs and the consented functions of their groups; the module's result.

    A second pass follows a first bind that made unknown groups known, because their consented members are bound too.
    """
    plan, unknown = _bind_once(host, options)
    if unknown and not options.check_mode:
        later, _unknown = _bind_once(host, options)
        plan = Plan(plan.before, later.after, plan.steps + later.steps)
    return _result(plan)


def _bind_once(host: Host, options: DriverOptions) -> tuple[Plan, bool]:
    """One pass; also says whether a group was unknown before it."""
    identities = sysfs.list_identities(host)
    selected = select_gpus(parse_requests(options.gpus), identities)
    allowed = allowed_addresses([gpu.address for gpu in selected], options.consent, identities)
    functions = _functions_to_bind(host, selected, identities, options.consent)
    chooser = VariantChooser(host, options.planned)
    variants = {function.address: _variant(chooser, function, options, is_gpu=not accompanied)
                for function, accompanied in functions}
    moving = [function for function, _gpus in functions
              if function.driver is None or function.driver != variants[function.address].driver]
    _require_free(host, moving, options)
    load = _load_steps(host, {variants[function.address].module for function in moving})
    loaded = _load(host, load, chooser, variants, options)
    items = [_bind_item(host, function, gpus, loaded[function.address], options) for function, gpus in functions]
    shared = _shared_files(host, {item.function.address for item in items})
    plan = plan_bind(items, shared, allowed)
    if plan.changed and not options.check_mode:
        _apply_or_roll_back(host, plan, items, shared)
    unknown = any(function.group is None for function, _gpus in functions)
    return Plan(plan.before, plan.after, tuple(load) + plan.steps), unknown


def _functions_to_bind(host: Host, selected: Sequence[SelectedGpu], identities: Mapping[str, PciIdentity],
                       consent: frozenset[str]) -> list[tuple[PciFunction, tuple[str, ...]]]:
    """The GPUs and their companions, each with the GPUs that it accompanies. Raises before anything is changed."""
    chosen = frozenset(gpu.address for gpu in selected)
    gpus = [sysfs.read_function(host, gpu.address) for gpu in selected]
    require_iommu(host, [gpu.address for gpu in gpus if gpu.group is None])
    accompanied: dict[str, list[str]] = {}
    for gpu in gpus:
        if gpu.group is None:
            continue
        require_isolation(host, gpu.address, gpu.group)
        members = [identities[address] for address in sysfs.read_group_members(host, gpu.group)
                   if address in identities]
        for address in companions(gpu.address, gpu.group, members, chosen, consent):
            accompanied.setdefault(address, []).append(gpu.address)
    others = [(sysfs.read_function(host, address), tuple(of)) for address, of in sorted(accompanied.items())]
    return [(gpu, ()) for gpu in gpus] + others


def _variant(chooser: VariantChooser, function: PciFunction, options: DriverOptions, is_gpu: bool) -> Variant:
    """The operator's driver is meant for the GPUs; a companion gets what its own modalias asks for."""
    if is_gpu and options.driver != "auto":
        return chooser.named(options.driver)
    return chooser.choose(function.modalias)


def _load_steps(host: Host, modules: Iterable[str]) -> list[RunCommand]:
    """modprobe for each module that sysfs does not show as loaded with a PCI driver."""
    return [RunCommand(("modprobe", module), why="load the VFIO driver", timeout=120)
            for module in sorted(modules) if sysfs.driver_of_module(host, module) is None]


def _load(host: Host, load: Sequence[RunCommand], chooser: VariantChooser, variants: Mapping[str, Variant],
          options: DriverOptions) -> dict[str, Variant]:
    """Loads the modules and looks their drivers up, whose names sysfs alone knows; predicts them in check mode."""
    planned = {item.module for item in options.planned}
    for step in load:
        argv = step.argv if not options.check_mode else ("modprobe", "--dry-run", step.argv[-1])
        if options.check_mode and step.argv[-1] in planned:
            continue
        try:
            host.run(argv, timeout=step.timeout)
        except PassthroughError as error:
            raise PassthroughError(f"The module {step.argv[-1]} cannot be loaded: {error.message} Install it "
                                   "(dkms_module), or name another driver.") from error
    found = {}
    for address, variant in variants.items():
        driver = chooser.driver_name(variant.module)
        if driver is None and not options.check_mode:
            raise PassthroughError(f"The module {variant.module} is loaded and has no PCI driver: name another driver.")
        found[address] = replace(variant, driver=driver or variant.module)
    return found


def _bind_item(host: Host, function: PciFunction, companion_of: tuple[str, ...], variant: Variant,
               options: DriverOptions) -> BindItem:
    return BindItem(function=function, record=load_record(host, function.address),
                    rule=files.read_rule(host, function.address), driver=str(variant.driver), module=variant.module,
                    timeout=options.timeout, persistent=options.persistent, companion_of=companion_of)


def _shared_files(host: Host, addresses: set[str]) -> files.SharedFiles:
    """``addresses`` are those the plan is about: the modules of all others stay in the shared file."""
    others = frozenset(record.module for address, record in load_records(host).items()
                       if address not in addresses and record.persistent)
    return files.SharedFiles(files.read_modules_load(host), others, files.has_udev(host))


def _apply_or_roll_back(host: Host, plan: Plan, items: Sequence[BindItem], shared: files.SharedFiles) -> None:
    try:
        apply_plan(host, plan)
    except PassthroughError as error:
        remains = roll_back(host, items, shared)
        if remains:
            text = f"{error.message} Not everything could be put back: {' '.join(remains)}"
        else:
            text = f"{error.message} All functions have their previous drivers again."
        raise PassthroughError(text, **{**error.details, "remains": remains}) from error


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
        items.append(ReleaseItem(records[address], sysfs.read_function(host, address) if same else None,
                                 files.read_rule(host, address), options.timeout))
    _require_free(host, [item.function for item in items if item.function and item.leaves_driver], options)
    plan = plan_release(items, _shared_files(host, addresses)) if items else Plan({"devices": []}, {"devices": []})
    if plan.changed and not options.check_mode:
        apply_plan(host, plan)
    return {**_result(plan), "warnings": warnings}


def _addresses_to_release(host: Host, options: DriverOptions, recorded: set[str]) -> set[str]:
    """A GPU that left the host can still be given back by its address, because its record names it."""
    requests = parse_requests(options.gpus)
    if requests is None:
        return set(recorded)
    known = {request.address for request in requests if request.address in recorded}
    unknown = [request for request in requests if request.address not in known]
    found = {gpu.address for gpu in select_gpus(unknown, sysfs.list_identities(host))} if unknown else set()
    return {address for address in known if address} | (found & recorded)


def _require_free(host: Host, functions: Sequence[PciFunction], options: DriverOptions) -> None:
    """Raises PassthroughError where somebody uses one of ``functions`` and does not stop in time."""
    if not functions:
        return
    deadline = time.monotonic() + (options.timeout if options.wait and not options.check_mode else 0)
    initiators = generic_initiator_nodes(host)
    while True:
        reader = UsageReader(host)
        usages = {function.address: reader.usage(function, initiators.get(function.address, ()))
                  for function in functions}
        busy = {address: usage for address, usage in usages.items() if usage.busy}
        if not busy:
            return
        if time.monotonic() >= deadline:
            break
        time.sleep(_POLL_SECONDS)
    waited = f" after {options.timeout:.0f} seconds" if options.wait and not options.check_mode else ""
    text = "; ".join(f"{address}: {', '.join(usage.reasons())}" for address, usage in busy.items())
    raise PassthroughError(f"In use{waited}: {text}. End that first; nothing was changed.", in_use=sorted(busy))


def _result(plan: Plan) -> dict[str, Any]:
    before = {entry["address"]: entry for entry in plan.before["devices"]}
    devices = []
    for after in plan.after["devices"]:
        was = before.get(after["address"], after)
        devices.append({
            "address": after["address"],
            "group": after["group"],
            "persistent": after["persistent"],
            "before": {"driver": was["driver"], "driver_override": was["driver_override"]},
            "after": {"driver": after["driver"], "driver_override": after["driver_override"]},
        })
    return {**plan_result(plan, plan.actions()), "devices": devices}
