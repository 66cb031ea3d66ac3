# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side: a task that a survey has answered calls no host, and every other task does."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure

from ansible_collections.nvgrace.passthrough.plugins.action import (
    domain_xml,
    gpu_driver,
    gpu_info,
    host_config,
    host_info,
    host_survey,
    region_verify,
)
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.compare import digest
from ansible_collections.nvgrace.passthrough.plugins.module_utils._survey.answer import Answer, domain_question
from ansible_collections.nvgrace.passthrough.plugins.module_utils._survey.ask import STAGES
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils import stage
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.kmod import SHIPPED_SOURCE
from ansible_collections.nvgrace.passthrough.tests.unit._domain.descriptions import CASES

PLUGINS = {"host_info": host_info, "gpu_info": gpu_info, "host_config": host_config, "gpu_driver": gpu_driver,
           "region_verify": region_verify}
ARGUMENTS = {"gpus": [{"address": "0009:01:00.0"}]}
KNOWN = {"changed": False, "elapsed": 0.1}
CALLED = {"changed": True}


def recorder(plugin: Any, arguments: dict[str, Any], async_val: int = 0) -> Any:
    """The plugin with everything of Ansible that it touches played; ``calls`` are those to the host."""
    action = plugin.ActionModule.__new__(plugin.ActionModule)
    action._task = SimpleNamespace(args=dict(arguments), async_val=async_val, action="x", check_mode=False)
    action._connection = SimpleNamespace(has_native_async=False, _shell=SimpleNamespace(tmpdir="/tmp/x"))
    action.calls, action.removed = [], []

    def execute(**call: Any) -> dict[str, Any]:
        action.calls.append(call)
        return dict(CALLED)

    action._execute_module, action._remove_tmp_path = execute, action.removed.append
    return action


@pytest.fixture(autouse=True)
def without_base_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (stage, host_survey, domain_xml):
        monkeypatch.setattr(module.ActionBase, "run", lambda *_arguments: {})


def survey(name: str, arguments: dict[str, Any], result: dict[str, Any] | None = None, age: float = 0,
           **noted: Any) -> dict[str, Any]:
    """What host_survey's task registers."""
    return {"answers": {name: Answer(arguments, result or KNOWN).pack()}, "asked_at": str(time.monotonic() - age),
            "play": "Site", "until": ["configured", "drained"], **noted}


def variables(asked: Any, **others: Any) -> dict[str, Any]:
    return {"ansible_play_name": "Site", "asked": asked, **others}


def ask(asked: Any, name: str = "gpu_info", async_val: int = 0, **others: Any) -> Any:
    """The plugin after its run, and the result in it, where ``asked`` is what the survey's task has registered."""
    action = recorder(PLUGINS[name], {**ARGUMENTS, "survey": "asked"}, async_val)
    action.result = action.run(task_vars=variables(asked, **others))
    return action


@pytest.mark.parametrize("name", PLUGINS)
def test_an_answered_task_calls_no_host(name: str) -> None:
    action = ask(survey(name, ARGUMENTS), name)
    assert (action.result, action.calls, action.removed) == (KNOWN, [], ["/tmp/x"])


@pytest.mark.parametrize("name", PLUGINS)
@pytest.mark.parametrize("answers", [
    None, {}, "text", {"other": "x"}, {"host_info": None, "gpu_info": "garbage"},
    {name: Answer({"gpus": []}, KNOWN).pack() for name in PLUGINS}])
def test_any_other_task_calls_it(name: str, answers: Any) -> None:
    action = ask(survey(name, ARGUMENTS, answers=answers), name)
    assert action.result == CALLED
    (call,) = action.calls
    assert (call["module_name"], call["module_args"]) == (f"nvgrace.passthrough.{name}", ARGUMENTS)
    assert call["task_vars"]["ansible_play_name"] == "Site" and call["wrap_async"] is False


@pytest.mark.parametrize("registered", [None, {}, "text", {"skipped": True}, {"answers": {}}])
def test_a_variable_without_a_survey_has_no_answers(registered: Any) -> None:
    assert len(ask(registered).calls) == 1


@pytest.mark.parametrize("given", [None, "nothing", 5, {"gpu_info": "x"}])
def test_what_names_no_variable_has_no_answers(given: Any) -> None:
    action = recorder(gpu_info, {**ARGUMENTS, "survey": given})
    assert action.run(task_vars=variables(survey("gpu_info", ARGUMENTS))) == CALLED


@pytest.mark.parametrize(("others", "known"), [
    ({}, True), ({"configured": {"changed": False}}, True), ({"drained": {"changed": False, "skipped": True}}, True),
    ({"something_else": {"changed": True}}, True), ({"configured": "text"}, True),
    ({"configured": {"changed": True}}, False), ({"drained": {"changed": False, "include": "/drain.yml"}}, False),
    ({"ansible_play_name": "Another play"}, False)])
def test_answers_are_for_one_play_and_until_something_has_changed(others: dict[str, Any], known: bool) -> None:
    assert (ask(survey("gpu_info", ARGUMENTS), **others).calls == []) is known


def test_a_task_in_the_background_calls_it() -> None:
    action = ask(survey("gpu_info", ARGUMENTS), async_val=60)
    assert (action.calls[0]["wrap_async"], action.removed) == (True, [])


@pytest.mark.parametrize("order", [
    {"_ansible_no_log": True}, {"add_host": {"host_name": "victim"}}, {"add_group": "x"}, {"ansible_facts": {"a": 1}},
    {"results": 5}])
def test_a_host_cannot_speak_to_ansible_through_an_answer(order: dict[str, Any]) -> None:
    """Its module's own result is cleaned by Ansible."""
    action = ask(survey("gpu_info", ARGUMENTS, {**KNOWN, **order}))
    assert (action.result, len(action.calls)) == (CALLED, 1)


@pytest.mark.parametrize(("age", "known"), [(stage.MAX_AGE - 5, True), (stage.MAX_AGE + 1, False), (-60, False)])
def test_an_old_answer_is_none(age: float, known: bool) -> None:
    assert (ask(survey("gpu_info", ARGUMENTS, age=age)).calls == []) is known


@pytest.mark.parametrize("asked_at", [None, "yesterday", "nan", [], "inf"])
def test_an_answer_of_no_time_is_none(asked_at: Any) -> None:
    assert len(ask(survey("gpu_info", ARGUMENTS, asked_at=asked_at)).calls) == 1


def test_every_stage_has_a_plugin_that_looks() -> None:
    assert {item.name for item in STAGES} == {*PLUGINS, "dkms_module"}


def domain(asked: Any = None, **changes: Any) -> tuple[Any, dict[str, Any]]:
    """The plugin for a domain, and the result that it returns with a survey, or with none."""
    arguments = {**CASES["gh200-compat"](), "survey": "asked", **changes}
    action = recorder(domain_xml, arguments)
    return action, action.run(task_vars=variables(asked))


def test_an_answered_domain_calls_no_host() -> None:
    _action, plain = domain()
    known = {**KNOWN, "defined_xml": "<domain/>", "restart_required": True}
    answers = survey("domain_xml gpu-vm", domain_question("gpu-vm", digest(plain["xml"]), None), known)
    action, result = domain(answers)
    assert action.calls == []
    assert result == {**plain, **known}


@pytest.mark.parametrize("changes", [{"autostart": True}, {"dest": "/etc/vm.xml"}, {"define": False, "dest": "/etc/x"},
                                     {"state": "absent"}])
def test_a_domain_with_other_wishes_calls_it(changes: dict[str, Any]) -> None:
    _action, plain = domain()
    answers = survey("domain_xml gpu-vm", domain_question("gpu-vm", digest(plain["xml"]), None))
    assert len(domain(answers, **changes)[0].calls) == 1


def test_a_domain_of_other_xml_calls_it() -> None:
    answers = survey("domain_xml gpu-vm", domain_question("gpu-vm", digest("<other/>"), None))
    action, _result = domain(answers)
    assert len(action.calls) == 1 and "survey" not in action.calls[0]["module_args"]


WISHES = {"host_info": {}, "gpu_info": ARGUMENTS, "host_config": {}, "dkms_module": {}}


def test_the_survey_sends_the_source_and_of_a_vm_what_matters() -> None:
    vms = [{"name": "one", "vcpus": 4, "autostart": "yes"}, {"name": "two", "memory": "1GiB", "autostart": None}]
    action = recorder(host_survey, {**WISHES, "vms": vms})
    assert (action.run()["changed"], action.removed) == (CALLED["changed"], ["/tmp/x"])
    sent = action.calls[0]["module_args"]
    assert sent["vms"] == [{"name": "one", "autostart": True}, {"name": "two"}]
    assert set(sent["_payload"]) == {"_source", "_source_sha256"}
    assert {name: sent[name] for name in WISHES} == WISHES
    assert SHIPPED_SOURCE.is_dir()


@pytest.mark.parametrize("vms", [None, "text", [{"vcpus": 4}], [{"name": "one"}, "two"],
                                 [{"name": "one", "autostart": 7.5}]])
def test_vms_that_domain_xml_would_refuse_are_left_to_it(vms: Any) -> None:
    action = recorder(host_survey, {**WISHES, "vms": vms})
    action.run()
    assert action.calls[0]["module_args"]["vms"] == []


def test_how_long_a_survey_is_good_is_noted_by_the_controller() -> None:
    action = recorder(host_survey, {**WISHES, "until": ["configured"]})
    action._execute_module = lambda **_call: {"changed": False, "answers": {"gpu_info": "x"}, "asked_at": "inf",
                                              "play": "Another", "until": []}
    before = time.monotonic()
    result = action.run(task_vars={"ansible_play_name": "Site"})
    assert before <= float(result.pop("asked_at")) <= time.monotonic()
    assert result == {"changed": False, "answers": {"gpu_info": "x"}, "play": "Site", "until": ["configured"]}


def test_what_ends_a_survey_is_not_sent_to_the_host() -> None:
    action = recorder(host_survey, {**WISHES, "until": ["configured"]})
    action.run()
    assert "until" not in action.calls[0]["module_args"]


@pytest.mark.parametrize("until", ["configured", [5], {"a": 1}])
def test_names_that_are_none_are_refused(until: Any) -> None:
    with pytest.raises(AnsibleActionFail, match="until must be a list of names of variables"):
        recorder(host_survey, {**WISHES, "until": until}).run()


@pytest.mark.parametrize("wish", [{"source": "/nothing/there"}, {"prebuilt": "relative"}, {"prebuilt": "/proc/1/mem"}])
def test_what_dkms_module_would_refuse_is_left_to_it(wish: dict[str, Any]) -> None:
    action = recorder(host_survey, {**WISHES, "dkms_module": wish})
    action._find_needle = lambda _directory, needle: needle
    action.run()
    assert action.calls[0]["module_args"]["dkms_module"] is None
    assert "_payload" not in action.calls[0]["module_args"]


@pytest.mark.parametrize("wish", [None, "text"])
def test_no_source_is_sent_where_nobody_asks_for_it(wish: Any) -> None:
    action = recorder(host_survey, {**WISHES, "dkms_module": wish})
    action.run()
    assert action.calls[0]["module_args"]["dkms_module"] == wish
    assert "_payload" not in action.calls[0]["module_args"]


def test_the_payload_is_no_option() -> None:
    with pytest.raises(AnsibleActionFail, match="Unsupported parameters for host_survey: _payload"):
        recorder(host_survey, {**WISHES, "_payload": {}}).run()


def test_what_each_worker_would_load_is_loaded_before_the_fork() -> None:
    """In a process of its own, because the tests here have loaded much."""
    script = ("import sys; sys.path.insert(0, sys.argv[1]); "
              "import ansible_collections.nvgrace.passthrough.plugins.action.host_survey; "
              "print(sum(name.startswith('ansible.plugins.test.') for name in sys.modules))")
    done = subprocess.run([sys.executable, "-c", script, str(Path(stage.__file__).parents[5])], check=True, text=True,
                          stdout=subprocess.PIPE)
    assert int(done.stdout) > 0


@pytest.mark.parametrize("plugin", [*PLUGINS.values(), host_survey])
def test_a_host_that_does_not_answer_fails_only_where_ansible_would_go_on(plugin: Any) -> None:
    def lost(**_call: Any) -> dict[str, Any]:
        raise AnsibleConnectionFailure("Connection timed out")

    action = recorder(plugin, ARGUMENTS)
    action._execute_module = lost
    action._task.ignore_unreachable = False
    with pytest.raises(AnsibleConnectionFailure):
        action.run()
    action._task.ignore_unreachable = True
    with pytest.raises(AnsibleActionFail, match="^The host does not answer: Connection timed out$"):
        action.run()
