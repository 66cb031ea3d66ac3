# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The survey of site.yml asks what the roles will ask: else its answers would never be used. Its options are theirs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.nvgrace.passthrough.plugins.module_utils._survey.ask import STAGES

ROOT = Path(__file__).parents[3]
ROLES = ROOT / "roles"
COLLECTION = "nvgrace.passthrough"
# The survey finds them itself.
DERIVED = {"dkms_module": {"required_ids"}, "gpu_driver": {"planned_modules"}}
TASKS = {"host_info": "gpu_preflight", "gpu_info": "gpu_preflight", "host_config": "gpu_host",
         "dkms_module": "gpu_kmod", "gpu_driver": "gpu_bind", "region_verify": "gpu_verify", "domain_xml": "gpu_domain"}
# Variables of the survey's own role, and whose they are copies of.
COPIES = {"__gpu_survey_profiles": ("gpu_preflight", "__gpu_preflight_profiles"),
          "__gpu_survey_handed_out": ("gpu_kmod", "__gpu_kmod_handed_out")}
REGISTERED = "gpu_survey_result"


def tasks_of(items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for item in items:
        yield item
        for part in ("block", "rescue", "always"):
            yield from tasks_of(item.get(part, []))


def calls(role: str, module: str) -> list[dict[str, Any]]:
    """The arguments of a role's tasks with a module, but for those that another host carries out."""
    found = []
    for path in sorted((ROLES / role / "tasks").glob("*.yml")):
        items = [item for item in yaml.safe_load(path.read_text()) if "delegate_to" not in item]
        tasks = list(tasks_of(items))
        found += [task[f"{COLLECTION}.{module}"] for task in tasks if f"{COLLECTION}.{module}" in task]
    return found


def asked() -> dict[str, Any]:
    (arguments,) = calls("gpu_survey", "host_survey")
    text = json.dumps(arguments)
    for copy, (_role, name) in COPIES.items():
        text = text.replace(copy, name)
    renamed: dict[str, Any] = json.loads(text)
    return renamed


@pytest.mark.parametrize(("copy", "role", "name"), [(copy, *of) for copy, of in COPIES.items()])
def test_its_variables_are_copies(copy: str, role: str, name: str) -> None:
    ours, theirs = (yaml.safe_load((ROLES / part / "vars" / "main.yml").read_text()) for part in ("gpu_survey", role))
    assert ours[copy] == theirs[name]


@pytest.mark.parametrize("module", [stage.name for stage in STAGES])
def test_the_survey_asks_what_the_role_asks(module: str) -> None:
    task = calls(TASKS[module], module)[0]
    rest = {name: value for name, value in task.items() if name != "survey" and name not in DERIVED.get(module, set())}
    assert asked()[module] == rest


@pytest.mark.parametrize(("module", "role"), TASKS.items())
def test_each_first_call_takes_the_answers(module: str, role: str) -> None:
    assert calls(role, module)[0]["survey"] == REGISTERED


def test_the_survey_asks_for_nothing_else() -> None:
    assert set(asked()) == {stage.name for stage in STAGES} | {"vms", "until"}


def test_its_options_are_those_of_all_roles() -> None:
    subprocess.run([sys.executable, ROOT / "tests" / "tools" / "survey_specs.py", "--check"], check=True)
    merged = yaml.safe_load((ROLES / "gpu_survey" / "meta" / "argument_specs.yml").read_text())
    for role in {"gpu_report", *TASKS.values()}:
        own = yaml.safe_load((ROLES / role / "meta" / "argument_specs.yml").read_text())
        for name, option in own["argument_specs"]["main"]["options"].items():
            both = (option, merged["argument_specs"]["main"]["options"][name])
            assert [{**one, "description": ""} for one in both] == [{**option, "description": ""}] * 2, name


def imports(path: Path) -> dict[str, dict[str, Any]]:
    (play,) = yaml.safe_load(path.read_text())
    found = (task.get("ansible.builtin.import_role") for task in tasks_of(play["tasks"]))
    return {task["name"].rpartition(".")[2]: task for task in found if task}


def test_site_yml_checks_the_options_once_and_first() -> None:
    roles = imports(ROOT / "playbooks" / "site.yml")
    assert next(iter(roles)) == "gpu_survey"
    assert "rolespec_validate" not in roles.pop("gpu_survey")
    assert {name: task.get("rolespec_validate") for name, task in roles.items()} == dict.fromkeys(
        {"gpu_report", *TASKS.values()}, False)


def test_answers_are_good_until_something_has_changed() -> None:
    """Each result of a stage that may change the host is among those that end their time; no stage follows the last."""
    changing = [f"{TASKS[module]}_result" for module in ("host_config", "dkms_module", "gpu_driver")]
    assert asked()["until"] == [*changing, "gpu_drain_result"]
    (play,) = yaml.safe_load((ROOT / "playbooks" / "site.yml").read_text())
    registered = {task["register"] for task in tasks_of(play["tasks"]) if "register" in task}
    for role in set(TASKS.values()) | {"gpu_survey"}:
        for path in (ROLES / role / "tasks").glob("*.yml"):
            tasks = tasks_of(yaml.safe_load(path.read_text()))
            registered |= {task["register"] for task in tasks if "register" in task}
    assert {REGISTERED, *asked()["until"]} <= registered
