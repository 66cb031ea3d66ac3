# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments of examples against the argument specs that modules and roles really have."""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.module import Module

ROOT = Path(__file__).resolve().parents[2]
FQCN = "nvgrace.passthrough"
_RULES = ("mutually_exclusive", "required_together", "required_one_of", "required_if", "required_by")
# What the playbooks read, beside the options of roles.
PLAY_VARIABLES = {
    "nvgrace_hosts": {"type": "raw"}, "nvgrace_serial": {"type": "raw"}, "nvgrace_drain_tasks": {"type": "str"},
    "nvgrace_max_fail_percentage": {"type": "int"}, "nvgrace_restore_failed": {"type": "bool"},
    "nvgrace_in_service": {"type": "bool"}, "nvgrace_undrain_tasks": {"type": "str"},
    "restore_gpus": {"type": "list", "elements": "dict"},
    "restore_purge": {"type": "bool"},
}


class CapturedError(Exception):
    """Ends a module's main() where its specification is known."""


def module_spec(name: str) -> dict[str, Any]:
    """What main() gives to AnsibleModule. host_report has an action plugin only: its documentation is its spec."""
    module = importlib.import_module(f"ansible_collections.nvgrace.passthrough.plugins.modules.{name}")
    if not hasattr(module, "main"):
        return {"argument_spec": argument_spec(yaml.safe_load(module.DOCUMENTATION)["options"])}
    found: dict[str, Any] = {}

    def capture(_self: Module, **keywords: Any) -> None:
        found.update(keywords)
        raise CapturedError

    with mock.patch.object(Module, "__init__", capture), contextlib.suppress(CapturedError):
        module.main()
    return found


def argument_spec(options: dict[str, Any]) -> dict[str, Any]:
    """Documented options as AnsibleModule takes them."""
    kept = ("type", "elements", "choices", "required")
    spec = {name: {key: option[key] for key in kept if key in option} for name, option in options.items()}
    for name, option in options.items():
        inner = option.get("suboptions") or option.get("options")
        if inner:
            spec[name]["options"] = argument_spec(inner)
    return spec


def role_options() -> dict[str, Any]:
    """The options of all roles; those that several roles share are the same in each."""
    found: dict[str, Any] = dict(PLAY_VARIABLES)
    for path in sorted((ROOT / "roles").glob("*/meta/argument_specs.yml")):
        found |= argument_spec(yaml.safe_load(path.read_text())["argument_specs"]["main"]["options"])
    return found


def _without_templates(spec: dict[str, Any], given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What stands in a template is known at run time only: such options may be anything."""
    free = {name for name, value in given.items() if isinstance(value, str) and "{{" in value}
    return {name: {"type": "raw"} if name in free else option for name, option in spec.items()}, given


def problems(spec: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """What the argument spec of a module or role says against the arguments."""
    options, parameters = _without_templates(spec["argument_spec"], given)
    rules = {rule: spec[rule] for rule in _RULES if spec.get(rule)}
    return list(ArgumentSpecValidator(options, **rules).validate(parameters).error_messages)
