# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the modules of a host's stages, one after the other, what they would do: each in check mode, so nothing is done.

It ends at the first that would do something. What stands behind that one depends on what it does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.module import WRONG_FORM, wrong_form
from .._core.stage import Stage
from .._domain.converge import find_settled
from .._domain.request import parse_name
from .._gpu.stage_driver import GPU_DRIVER
from .._gpu.stage_info import GPU_INFO
from .._host.stage_config import HOST_CONFIG
from .._host.stage_info import HOST_INFO
from .._kmod.stage import DKMS_MODULE
from .._vfio.stage import REGION_VERIFY
from .answer import Answer, domain_key, domain_question

STAGES: tuple[Stage, ...] = (HOST_INFO, GPU_INFO, HOST_CONFIG, DKMS_MODULE, GPU_DRIVER, REGION_VERIFY)
DOMAIN_XML = "domain_xml"
PAYLOAD = "_payload"
"""Arguments of dkms_module's controller side. They travel beside its options, which may have no text of that length."""

Result = dict[str, Any]


@dataclass
class _Question:
    """What a stage's work takes of AnsibleModule."""

    params: dict[str, Any]
    log: Callable[[str], None]
    check_mode: bool = True
    warnings: list[str] = field(default_factory=list)

    def warn(self, warning: str) -> None:
        self.warnings.append(warning)


@dataclass(frozen=True)
class Survey:
    """``answers`` by the names of the modules; ``open_stage`` is the first that has none, with ``why``, or None."""

    answers: Mapping[str, Answer]
    open_stage: Optional[str] = None
    why: Optional[str] = None


def survey(host: Host, wishes: Mapping[str, Optional[Mapping[str, Any]]], payload: Optional[Mapping[str, Any]],
           vms: Sequence[Mapping[str, Any]], check_mode: bool, log: Callable[[str], None]) -> Survey:
    """``wishes`` are the arguments of each module; the survey ends before one without. ``payload`` is dkms_module's.
    ``vms`` have a ``name`` and perhaps ``autostart``; their domains are the last that is asked for. ``check_mode`` is
    that of the tasks which shall take the answers."""
    answers: dict[str, Answer] = {}
    results: dict[str, Result] = {}
    for stage in STAGES:
        wish = wishes.get(stage.name)
        if wish is None:
            return Survey(answers, stage.name, "It was not asked.")
        arguments = {**wish, **_derived(stage, results)}
        extra = dict(payload or {}) if stage.name == DKMS_MODULE.name else {}
        # A real run of gpu_driver does not look at modules that are yet to come, so neither does what stands for it.
        unseen: Result = {"planned_modules": []} if stage.name == GPU_DRIVER.name and not check_mode else {}
        params, wrong = _validate(stage, {**arguments, **extra, **unseen})
        if wrong:
            return Survey(answers, stage.name, wrong)
        try:
            result = _ask(stage, _Question(params, log), host)
        except (PassthroughError, OSError) as error:
            return Survey(answers, stage.name, str(error))
        why = unsettled(result)
        if why is not None:
            return Survey(answers, stage.name, why)
        results[stage.name] = result
        answers[stage.name] = Answer({**arguments, **_named(extra)}, result)
    return _ask_domains(host, vms, answers)


def _ask_domains(host: Host, vms: Sequence[Mapping[str, Any]], answers: dict[str, Answer]) -> Survey:
    names = [vm["name"] for vm in vms]
    if len(set(names)) < len(names):
        return Survey(answers, DOMAIN_XML, "A name is there twice: what the first task defines, the second finds.")
    for vm in vms:
        started = time.monotonic()
        try:
            name = parse_name(vm["name"])
            settled = find_settled(host, name, vm.get("autostart"))
        except (PassthroughError, OSError) as error:
            return Survey(answers, DOMAIN_XML, str(error))
        if settled is None:
            return Survey(answers, DOMAIN_XML, f"The domain {name} is not as it was defined.")
        xml_sha256, result = settled
        answers[domain_key(name)] = Answer(domain_question(name, xml_sha256, vm.get("autostart")),
                                           {**result, "elapsed": _since(started)})
    return Survey(answers)


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)


def unsettled(result: Mapping[str, Any]) -> Optional[str]:
    """Why a module has something to do by what it said in check mode; None where nothing is to be done.

    A reboot that is due comes before the later stages. What is missing is a warning in check mode and a failure else.
    """
    actions = result.get("actions") or []
    if result.get("changed"):
        return f"It would {actions[0]}." if actions else "It would change something."
    if result.get("reboot_required"):
        return "A reboot is due."
    return "It has missing packages." if result.get("missing_packages") else None


def _validate(stage: Stage, arguments: Mapping[str, Any]) -> tuple[Result, str]:
    """The arguments as options with their defaults, and what is wrong with them."""
    # ansible-core has no types here
    validator = ArgumentSpecValidator(dict(stage.options), **stage.rules)  # type: ignore[no-untyped-call,unused-ignore]
    try:
        checked = validator.validate(dict(arguments))  # type: ignore[no-untyped-call,unused-ignore]  # as above
    except WRONG_FORM as error:
        return {}, wrong_form(error)
    return checked.validated_parameters, " ".join(checked.error_messages)


def _ask(stage: Stage, question: _Question, host: Host) -> Result:
    """The stage's result in check mode, as its module would return it. Raises PassthroughError."""
    started = time.monotonic()
    result = stage.work(question, host)
    remarks = {"warnings": question.warnings} if question.warnings else {}
    return {**result, **remarks, "elapsed": _since(started)}


def _derived(stage: Stage, results: Mapping[str, Result]) -> Result:
    """What a role hands from one module to the next."""
    if stage.name == DKMS_MODULE.name:
        coherent = {f"10de:{gpu['device']}" for gpu in results[GPU_INFO.name]["gpus"] if gpu["coherent"]}
        return {"required_ids": sorted(coherent)}
    if stage.name == GPU_DRIVER.name:
        return {"planned_modules": results[DKMS_MODULE.name].get("provides") or []}
    return {}


def _named(payload: Mapping[str, Any]) -> Result:
    """What tells one payload from another: the source itself is as good as its hash."""
    return {name: value for name, value in payload.items() if name != "_source"}
