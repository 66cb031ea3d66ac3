# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What gpu_driver does to bind: reads the host, asks the planners, carries the plan out or rolls it back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, Optional

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.plan import Plan, RunCommand, apply_plan
from . import files, nodes, sysfs
from .binding import BindItem, driver_result, plan_bind
from .busy import require_free
from .foreign import Subject, contradictions, read_foreign_files
from .group import (
    allowed_addresses,
    companions,
    group_identities,
    require_iommu,
    require_isolating_vfio,
    require_isolation,
)
from .model import PciFunction
from .options import DriverOptions
from .record import load_record, load_records
from .rollback import roll_back
from .select import SelectedGpu, parse_requests, select_gpus
from .variant import Variant, VariantChooser


@dataclass(frozen=True)
class _Pass:
    """What one pass over the GPUs planned, or did."""

    plan: Plan
    items: tuple[BindItem, ...]
    shared: files.SharedFiles

    @property
    def group_was_unknown(self) -> bool:
        return any(item.function.group is None for item in self.items)


class _UndoneError(PassthroughError):
    """What was done is undone, or the message says what remains; ``reason`` is the message without that."""

    def __init__(self, message: str, reason: str, details: Mapping[str, Any]) -> None:
        super().__init__(message, **details)
        self.reason = reason


def bind_gpus(host: Host, options: DriverOptions) -> dict[str, Any]:
    """Binds the selected GPUs and the consented functions of their groups; the module's result, with ``warnings``.

    A second pass follows a first bind that made unknown groups known, because their consented members are bound too.
    Where that one fails, the first is undone as well. A module that was loaded stays loaded, and the error says so.
    """
    loaded: list[RunCommand] = []
    try:
        return _bind(host, options, loaded)
    except PassthroughError as error:
        if not loaded:
            raise
        raise _with_loaded(error, loaded) from error


def _bind(host: Host, options: DriverOptions, loaded: list[RunCommand]) -> dict[str, Any]:
    done = _bind_once(host, options, loaded)
    plan = done.plan
    if done.group_was_unknown and not options.check_mode:
        try:
            later = _bind_once(host, options, loaded)
        except PassthroughError as error:
            raise _undone(host, error, done.items, done.shared) from error
        plan = Plan(plan.before, later.plan.after, plan.steps + later.plan.steps)
        done = later
    return {**driver_result(plan), "warnings": _warnings(host, done.items)}


def _with_loaded(error: PassthroughError, loaded: Sequence[RunCommand]) -> PassthroughError:
    """The error again, with the modules that were loaded before it: nothing is won by taking them out."""
    names = ", ".join(step.argv[-1] for step in loaded)
    actions = [*(step.describe() for step in loaded), *error.details.get("actions", [])]
    return PassthroughError(f"{error.message} Loaded for this, and still loaded: {names}.",
                            **{**error.details, "actions": actions, "changed": True})


def _bind_once(host: Host, options: DriverOptions, loaded: list[RunCommand]) -> _Pass:
    """One pass; ``loaded`` gets each module that it loads, whatever comes after."""
    require_isolating_vfio(host)
    group = None if options.device_group is None else nodes.find_group(host, options.device_group)
    identities = sysfs.list_identities(host)
    selected = select_gpus(parse_requests(options.gpus), identities)
    allowed = allowed_addresses([gpu.address for gpu in selected], options.consent, identities)
    functions = _functions_to_bind(host, selected, options.consent)
    chooser = VariantChooser(host, options.planned)
    variants = {function.address: _variant(chooser, function, options, is_gpu=not accompanied)
                for function, accompanied in functions}
    moving = [function for function, _gpus in functions
              if function.driver is None or function.driver != variants[function.address].driver]
    for function in moving:
        sysfs.require_answer(host, function.address)
    require_free(host, moving, options)
    load = _load_steps(host, {variants[function.address].module for function in moving})
    found = _load(host, load, chooser, variants, options, loaded)
    require_isolating_vfio(host)  # once more: VFIO itself may have come with the driver
    items = tuple(_bind_item(host, function, gpus, found[function.address], group, options)
                  for function, gpus in functions)
    shared = files.read_shared(host, {item.function.address for item in items})
    plan = plan_bind(items, shared, allowed)
    if plan.changed and not options.check_mode:
        _apply_or_roll_back(host, plan, items, shared)
    return _Pass(Plan(plan.before, plan.after, tuple(load) + plan.steps), items, shared)


def _functions_to_bind(host: Host, selected: Sequence[SelectedGpu],
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
        # read now and not with the others: a function that came in between needs consent as well
        for address in companions(gpu.address, gpu.group, group_identities(host, gpu.group), chosen, consent):
            accompanied.setdefault(address, []).append(gpu.address)
    others = [(sysfs.read_function(host, address), tuple(of)) for address, of in sorted(accompanied.items())]
    return [(gpu, ()) for gpu in gpus] + others


def _warnings(host: Host, items: Sequence[BindItem]) -> list[str]:
    """What the operator should know although the run succeeded."""
    found = [f"{item.function.address} was in IOMMU group {item.record.group} at the last run and is in "
             f"{item.function.group} now: what names the old group elsewhere is out of date." for item in items
             if item.record and item.record.group is not None
             and item.function.group not in (None, item.record.group)]
    found += _left(host, {item.function.address for item in items})
    for item in items:
        found += nodes.open_to_everybody(nodes.read_nodes(host, item.function.address))
    subjects = [Subject(item.function.identity, item.driver, item.module, item.wanted_record().previous_module)
                for item in items if item.persistent]
    if subjects:
        ours = [subject.identity.address for subject in subjects]
        found += contradictions(subjects, read_foreign_files(host, ours))
    return list(dict.fromkeys(found))


def _left(host: Host, bound: AbstractSet[str]) -> list[str]:
    """A warning of GPUs that an operator has taken out of the list: nothing gives them back without being told to."""
    left = [address for address, record in load_records(host).items()
            if address not in bound and not record.companion_of
            and sysfs.read_driver(host, address) == record.driver]
    return [f"Bound by an earlier run, and not among the GPUs of this one: {', '.join(left)}. What is not to be passed "
            "through any more is given back by state=released with its address, or by restore.yml with restore_gpus."
            ] if left else []


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
          options: DriverOptions, loaded: list[RunCommand]) -> dict[str, Variant]:
    """Loads the modules, notes them in ``loaded``, and looks their drivers up, whose names sysfs alone knows; predicts
    them in check mode."""
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
        if not options.check_mode:
            loaded.append(step)
    found = {}
    for address, variant in variants.items():
        driver = chooser.driver_name(variant.module)
        if driver is None and not options.check_mode:
            raise PassthroughError(f"The module {variant.module} is loaded and has no PCI driver: name another driver.")
        found[address] = replace(variant, driver=driver or variant.module)
    return found


def _bind_item(host: Host, function: PciFunction, companion_of: tuple[str, ...], variant: Variant,
               group: Optional[nodes.NodeGroup], options: DriverOptions) -> BindItem:
    previous = None if function.driver is None else sysfs.module_of_driver(host, function.driver)
    return BindItem(function=function, record=load_record(host, function.address),
                    rule=files.read_rule(host, function.address), driver=str(variant.driver), module=variant.module,
                    timeout=options.timeout, persistent=options.persistent, companion_of=companion_of,
                    previous_module=previous, device_group=group,
                    present_nodes=nodes.read_nodes(host, function.address))


def _apply_or_roll_back(host: Host, plan: Plan, items: Sequence[BindItem], shared: files.SharedFiles) -> None:
    try:
        apply_plan(host, plan)
    except PassthroughError as error:
        raise _undone(host, error, items, shared) from error


def _undone(host: Host, error: PassthroughError, items: Sequence[BindItem],
            shared: files.SharedFiles) -> PassthroughError:
    """Puts ``items`` back to what they were; the error again, with what remains of this and of an earlier undoing."""
    remains = [*error.details.get("remains", []), *roll_back(host, items, shared, error)]
    reason = error.reason if isinstance(error, _UndoneError) else error.message
    if remains:
        text = f"{reason} Not everything could be put back: {' '.join(remains)}"
    else:
        text = f"{reason} All functions have their previous drivers again."
    return _UndoneError(text, reason, {**error.details, "remains": remains, "changed": bool(remains)})
