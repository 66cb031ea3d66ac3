# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller side: what stays there, and the one call to the host."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
from ansible.errors import AnsibleActionFail, AnsibleError

from ansible_collections.nvgrace.passthrough.plugins.action import domain_xml
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.planner import plan_domain
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.domain_render import read_template, render
from ansible_collections.nvgrace.passthrough.tests.unit._domain.descriptions import CASES


class Recorder(domain_xml.ActionModule):
    """Everything of Ansible that the plugin touches, played."""

    def __init__(self, arguments: dict[str, Any], answer: dict[str, Any] | None = None) -> None:
        self._task = SimpleNamespace(args=arguments, action="domain_xml")
        self.answer = answer or {"changed": True}
        self.calls: list[dict[str, Any]] = []

    def _execute_module(self, **call: Any) -> dict[str, Any]:
        self.calls.append(call)
        return self.answer

    def _find_needle(self, dirname: str, needle: str) -> str:
        if not Path(needle).exists():
            raise AnsibleError(f"Could not find {needle} in {dirname}.")
        return needle


@pytest.fixture(autouse=True)
def without_base_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain_xml.ActionBase, "run", lambda *_arguments: {})


def arguments(case: str = "gh200-compat", **changes: Any) -> dict[str, Any]:
    return {**CASES[case](), **changes}


def test_present_sends_the_xml_and_no_facts() -> None:
    action = Recorder(arguments(dest="/etc/vm.xml", autostart=True))
    result = action.run(task_vars={"a": 1})
    (call,) = action.calls
    assert (call["module_name"], call["task_vars"]) == ("nvgrace.passthrough.domain_xml", {"a": 1})
    sent = call["module_args"]
    assert ElementTree.fromstring(sent.pop("_xml")).findtext("name") == "gpu-vm"
    assert sent == {"state": "present", "define": True, "vm": {"name": "gpu-vm"}, "dest": "/etc/vm.xml",
                    "autostart": True}
    assert result["changed"] and result["name"] == "gpu-vm" and "<domain" in result["xml"]
    assert result["features"][0] == {"name": "profile", "used": "compat", "why": "libvirt 11.3.0 and QEMU 10.0.13"}


@pytest.mark.parametrize(("task", "in_vm", "sent"), [
    (None, None, None), (None, True, True), (False, True, False), (True, None, True)])
def test_autostart_of_the_task_wins(task: bool | None, in_vm: bool | None, sent: bool | None) -> None:
    given = arguments(autostart=task)
    given["vm"]["autostart"] = in_vm
    action = Recorder(given)
    action.run()
    assert action.calls[0]["module_args"]["autostart"] is sent


def test_rendered_needs_no_host() -> None:
    given = arguments(state="rendered")
    given["vm"]["profile"] = "compat"
    del given["host"]
    action = Recorder(given)
    result = action.run()
    assert action.calls == []
    assert not result["changed"] and "highmem-mmio-size" in result["xml"]


def test_warnings_of_host_and_planner_are_both_shown() -> None:
    action = Recorder(arguments("gb200-2gpu-compat"), {"changed": True, "warnings": ["from the host"]})
    warnings = action.run()["warnings"]
    assert warnings[0] == "from the host"
    assert "CONFIG_NODES_SHIFT" in warnings[1]


@pytest.mark.parametrize(("given", "sent"), [
    ({"state": "absent", "vm": {"name": "vm"}}, {"state": "absent", "define": True, "vm": {"name": "vm"}}),
    ({"state": "absent"}, {"state": "absent", "define": True}),
])
def test_absent_needs_no_facts(given: dict[str, Any], sent: dict[str, Any]) -> None:
    action = Recorder(given)
    assert action.run() == {"changed": True}
    assert action.calls[0]["module_args"] == sent


@pytest.mark.parametrize(("changes", "message"), [
    ({"vm": None}, "vm is missing"),
    ({"host": None}, "host is missing"),
    ({"state": "rendered", "dest": "/x"}, "dest is for a file on the host"),
    ({"template": "no-such.j2"}, "The template no-such.j2 was not found"),
    ({"vm": {"name": "a/b"}}, "cannot be the name"),
    ({"gpus": []}, "wants 1 GPUs and gpu_info found 0"),
])
def test_refused_before_the_host_is_called(changes: dict[str, Any], message: str) -> None:
    action = Recorder(arguments(**changes))
    result = action.run()
    assert result["failed"] and message in result["msg"] and "\n" not in result["msg"]
    assert action.calls == []


@pytest.mark.parametrize(("changes", "message"), [
    ({"sate": "present"}, "sate"), ({"vm": {"name": "a", "memroy": 1}}, "memroy")])
def test_unknown_and_missing_options(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AnsibleActionFail, match=message):
        Recorder(arguments(**changes)).run()


def test_all_broken_rules_are_returned(tmp_path: Path) -> None:
    template = tmp_path / "mine.j2"
    template.write_text(read_template().replace("<rom bar='off'/>", "<rom bar='off'/><alias name='ua-rp0'/>")
                        .replace("      <alias name='{{ hostdev.alias }}'/>\n", ""))
    result = Recorder(arguments(template=str(template))).run()
    assert result["failed"] and len(result["broken"]) > 1
    assert result["broken"][0] in result["msg"]


@pytest.mark.parametrize(("text", "message"), [
    ("{{ plan.nothing }}", "cannot be rendered: .*nothing"), ("{% if %}", "cannot be rendered")])
def test_templates_that_do_not_render(text: str, message: str) -> None:
    with pytest.raises(PassthroughError, match=message):
        render(plan_domain(**CASES["gh200-compat"]()), text)


def test_a_template_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PassthroughError, match="cannot be read"):
        read_template(str(tmp_path))


def test_every_value_is_escaped() -> None:
    case = CASES["gh200-compat-demo"]()
    nasty = "a='b' & <c> \"d\""
    case["vm"].update(serial_log=f"/{nasty}", disks=[{"path": f"/{nasty}"}],
                      kernel={"path": f"/{nasty}", "initrd": f"/{nasty}", "cmdline": nasty},
                      firmware={"loader": f"/{nasty}", "nvram_template": f"/{nasty}"})
    root = ElementTree.fromstring(render(plan_domain(**case), read_template()))
    assert root.findtext("os/cmdline") == nasty
    for path in ("os/kernel", "os/initrd", "os/loader"):
        assert root.findtext(path) == f"/{nasty}"
    found = [root.find(path) for path in ("devices/disk/source", "devices/serial/source", "os/nvram")]
    assert [item.get(key) for item, key in zip(found, ("file", "path", "template")) if item is not None] == [
        f"/{nasty}"] * 3


def test_results_by_name_are_those_by_value() -> None:
    given = arguments()
    by_value = Recorder(dict(given)).run()
    named = {"host": "read", "gpus": "read", "regions": "verified"}
    action = Recorder({"vm": given["vm"], "registered": named})
    assert action.run(task_vars={"read": {"host": given["host"], "gpus": given["gpus"]},
                                 "verified": {"devices": given["regions"]}}) == by_value


@pytest.mark.parametrize(("changes", "message"), [
    ({"registered": {"host": "read"}}, "host is given as a value and in registered"),
    ({"host": None, "registered": {"host": "absent"}}, "registered: absent has no host for host"),
    ({"host": None, "registered": {"host": "skipped"}}, "registered: skipped has no host for host"),
    ({"regions": None, "registered": {"regions": "skipped"}}, "registered: skipped has no devices for regions"),
    ({"registered": {"vm": "read"}}, "registered does not know vm: it takes host, gpus, regions."),
    ({"host": None, "registered": {"host": "evil"}}, "holds a NUL character"),
])
def test_results_that_are_none_are_refused(changes: dict[str, Any], message: str) -> None:
    given = {name: value for name, value in arguments(**changes).items() if value is not None}
    action = Recorder(given)
    result = action.run(task_vars={"read": {"host": {}}, "skipped": {"skipped": True}, "evil": {"host": {"x": "\0"}}})
    assert result["failed"] and message in result["msg"]
    assert action.calls == []
