# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""host_survey: its options, and its result."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.module import Module
from .._core.runner import host_lock, run_module
from .ask import PAYLOAD, STAGES, Survey, survey

_VMS = {"name": {"type": "str", "required": True}, "autostart": {"type": "bool"}}
# The first two only read, and everything behind them stands on what they read.
_REQUIRED = 2


def _work(module: AnsibleModule, host: Host) -> dict[str, Any]:
    payload = module.params.pop(PAYLOAD)  # it would travel back in the result's invocation
    vms = module.params.pop("vms")
    module.params.pop("until", None)  # the controller's own, which sends it to no host

    def ask(wishes: dict[str, Any]) -> Survey:
        return survey(host, wishes, payload, vms, module.check_mode, module.log)

    if module.check_mode:
        return _result(ask(module.params))
    try:
        with host_lock(host, seconds=0):
            return _result(ask(module.params))
    except PassthroughError as error:
        # Another run is at work here. Who only reads does not wait for it, and each stage waits itself.
        reads = {stage.name: module.params[stage.name] for stage in STAGES[:_REQUIRED]}
        return _result(replace(ask(reads), why=error.message))


def _result(found: Survey) -> dict[str, Any]:
    return {"changed": False, "answers": {name: answer.pack() for name, answer in found.answers.items()},
            "settled": list(found.answers), "open_stage": found.open_stage, "why": found.why}


def run_survey() -> None:
    """The main() of the module."""
    options: dict[str, dict[str, Any]] = {stage.name: {"type": "dict", "required": place < _REQUIRED}
                                          for place, stage in enumerate(STAGES)}
    options["vms"] = {"type": "list", "elements": "dict", "options": _VMS, "default": []}
    options["until"] = {"type": "list", "elements": "str", "default": []}
    module = Module(argument_spec={**options, PAYLOAD: {"type": "dict", "no_log": False}}, supports_check_mode=True)
    run_module(module, _work, locked=False)
