# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Results by the names of their variables: the same as by value, or one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.nvgrace.passthrough.plugins.action.host_report import ActionModule
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.registered import registered_results
from ansible_collections.nvgrace.passthrough.tests.unit._report.records import arguments

OPTIONS = ("host", "gpus")
BOOT = {"changed": True, "reboot_required": True, "actions": ["write it"]}
BY_NAME = {"host": "the_host", "gpus": "the_gpus", "gpu_verify": "verified", "gpu_host": "configured",
           "gpu_kmod": "never_registered"}


def report(monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], **task_vars: Any) -> dict[str, Any]:
    monkeypatch.setattr("ansible.plugins.action.ActionBase.run", lambda *_arguments: {})
    action = ActionModule.__new__(ActionModule)
    action._task = SimpleNamespace(args=given, check_mode=False)
    return action.run(task_vars={"inventory_hostname": "gb200", **task_vars})


def record(result: dict[str, Any]) -> Any:
    found = json.loads(Path(result["path"]).read_text())
    del found["generated_at"]
    return found


def test_a_name_says_what_its_value_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = arguments(domain={"name": "vm"})
    given["stages"]["gpu_host"] = BOOT
    by_value = record(report(monkeypatch, {"dest": str(tmp_path), **given, "reboot_required": True}))
    assert by_value["reboot_required"] and by_value["domains"] and by_value["devices"] and by_value["gpus"]
    named = {"dest": str(tmp_path), "registered": {**BY_NAME, "gpu_domain": "domains"}}
    assert record(report(monkeypatch, named, the_host=given["host"], the_gpus=given["gpus"],
                         verified=given["stages"]["gpu_verify"], configured=BOOT,
                         domains=given["stages"]["gpu_domain"])) == by_value


def test_without_any_result_the_host_is_reported_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = record(report(monkeypatch, {"dest": str(tmp_path), "registered": BY_NAME}))
    assert (found["outcome"], found["reboot_required"], found["gpus"]) == ("incomplete", False, [])


@pytest.mark.parametrize(("names", "sentence"), [
    (["host"], "registered must be a dictionary"),
    ({"hosts": "a"}, "registered does not know hosts: it takes host, gpus."),
    ({"host": 5}, "registered: host must be the name of a variable"),
    ({"host": {"host": {}}}, "registered: host must be the name of a variable"),
    ({"host": "text"}, "registered: host must be the name of a variable"),
])
def test_what_is_no_name_of_a_result_is_refused(names: Any, sentence: str) -> None:
    with pytest.raises(PassthroughError, match=sentence):
        registered_results(names, OPTIONS, {"a": {}, "text": "{{ a }}"})


def test_what_no_module_returns_is_refused_by_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AnsibleActionFail, match="holds a NUL character"):
        report(monkeypatch, {"dest": str(tmp_path), "registered": {"host": "evil"}}, evil={"host": {"x": "\0"}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("show", [True, False])
def test_the_task_fails_where_the_host_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, show: bool) -> None:
    result = report(monkeypatch, {"dest": str(tmp_path), "fail": True, "show": show, "failure": "Bind the GPUs: no.",
                                  "after_failure": "Left. "})
    assert (result["failed"], result["msg"]) == (True, "Bind the GPUs: no. Left.")
    assert record(result)["outcome"] == "failed"
    # Ansible prints the whole result of a task that fails
    assert ("lines" in result) is show


@pytest.mark.parametrize("given", [{"fail": True}, {"failure": "x"}, {"failure": "x", "fail": False}])
def test_the_task_fails_only_then_and_where_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                              given: dict[str, Any]) -> None:
    assert "failed" not in report(monkeypatch, {"dest": str(tmp_path), **given})
