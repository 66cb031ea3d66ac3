# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""host_report with the results of a large host."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.nvgrace.passthrough.plugins.action.host_report import ActionModule
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.module import MAX_TEXT
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.planner import plan_domain
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.domain_render import read_template, render
from ansible_collections.nvgrace.passthrough.tests.unit._domain.descriptions import blackwell_gpus, grace_host, vm


def report(monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]) -> dict[str, Any]:
    monkeypatch.setattr("ansible.plugins.action.ActionBase.run", lambda *_arguments: {})
    action = ActionModule.__new__(ActionModule)
    action._task = SimpleNamespace(args=arguments, check_mode=False)
    return action.run(task_vars={"inventory_hostname": "gb200"})


def test_domain_of_a_whole_gb200_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = blackwell_gpus("2941", 4)
    xml = render(plan_domain(vm(gpus=4, vcpus=128, memory="512GiB"), grace_host(2, 2), gpus, []), read_template(""))
    assert len(xml) > MAX_TEXT
    domain = {"name": "gpu-vm", "changed": True, "xml": xml, "defined_xml": xml, "actions": ["define it"]}
    result = report(monkeypatch, {"dest": str(tmp_path), "stages": {"gpu_domain": {"results": [domain]}}})
    written = json.loads(Path(result["path"]).read_text())
    assert [item["name"] for item in written["domains"]] == ["gpu-vm"]


def test_text_that_no_module_returns_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AnsibleActionFail, match="no option takes more than 1048576"):
        report(monkeypatch, {"dest": str(tmp_path), "failure": "x" * (1 << 21)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("arguments", "shown"), [({}, None), ({"show": False}, None), ({"show": "yes"}, True)])
def test_the_run_shows_the_result_where_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                          arguments: dict[str, Any], shown: Any) -> None:
    result = report(monkeypatch, {"dest": str(tmp_path), **arguments})
    assert result.get("_ansible_verbose_always") is shown
    assert "show" not in json.loads(Path(result["path"]).read_text())


def test_neither_true_nor_false_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AnsibleActionFail, match="host_report: show must be true or false"):
        report(monkeypatch, {"dest": str(tmp_path), "show": "perhaps"})
    assert list(tmp_path.iterdir()) == []
