# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which stages are asked, with what, and where it ends. The stages' work is played here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Optional

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.runner import host_lock
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.stage import Asked
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.converge import Wanted, make_present
from ansible_collections.nvgrace.passthrough.plugins.module_utils._survey import ask, stage
from ansible_collections.nvgrace.passthrough.plugins.module_utils._survey.answer import unpack_answer
from ansible_collections.nvgrace.passthrough.plugins.module_utils._survey.ask import Survey, unsettled
from ansible_collections.nvgrace.passthrough.tests.unit._domain.fake_libvirt import DOMAIN, FakeHost

NAMES = ("host_info", "gpu_info", "host_config", "dkms_module", "gpu_driver", "region_verify")
GPUS = [{"address": "0009:01:00.0"}]
WISHES: dict[str, Optional[dict[str, Any]]] = {
    "host_info": {"profiles": ["auto"]}, "gpu_info": {"gpus": GPUS}, "host_config": {"modules_load": ["vfio-pci"]},
    "dkms_module": {"kernels": ["running"]}, "gpu_driver": {"gpus": GPUS, "timeout": "30"},
    "region_verify": {"gpus": GPUS}}
RESULTS: dict[str, dict[str, Any]] = {
    "host_info": {"changed": False, "host": {"checks": []}},
    "gpu_info": {"changed": False, "gpus": [
        {"device": "2342", "coherent": True}, {"device": "2941", "coherent": True},
        {"device": "2342", "coherent": True}, {"device": "20b0", "coherent": False}]},
    "host_config": {"changed": False, "actions": [], "reboot_required": False},
    "dkms_module": {"changed": False, "provides": [{"module": "m", "driver": "d", "aliases": []}],
                    "missing_packages": []},
    "gpu_driver": {"changed": False, "devices": []},
    "region_verify": {"changed": False, "devices": []}}


class Played:
    """Stages whose work returns what is in ``results``, or raises it, and notes what it was asked."""

    def __init__(self) -> None:
        self.results: dict[str, Any] = dict(RESULTS)
        self.asked: dict[str, dict[str, Any]] = {}
        self.logged: list[str] = []

    def work(self, name: str) -> Callable[[Asked, Host], dict[str, Any]]:
        def carry_out(module: Asked, _host: Host) -> dict[str, Any]:
            assert module.check_mode
            self.asked[name] = dict(module.params)
            module.log(name)
            if name == "gpu_driver":
                module.warn("Mind the group.")
            result = self.results[name]
            if isinstance(result, Exception):
                raise result
            return dict(result)

        return carry_out

    def survey(self, host: Host, vms: tuple[dict[str, Any], ...] = (), payload: Optional[dict[str, Any]] = None,
               check_mode: bool = False, **changes: Any) -> Survey:
        return ask.survey(host, {**WISHES, **changes}, payload, vms, check_mode, self.logged.append)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    made = Played()
    monkeypatch.setattr(ask, "STAGES", tuple(replace(stage, work=made.work(stage.name)) for stage in ask.STAGES))
    return made


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


def test_the_stages_are_those_of_site_yml_in_its_order() -> None:
    assert tuple(stage.name for stage in ask.STAGES) == NAMES


def test_a_host_with_nothing_to_do_is_answered_whole(played: Played, host: FakeHost) -> None:
    found = played.survey(host)
    assert (tuple(found.answers), found.open_stage, found.why) == (NAMES, None, None)
    for name, answer in found.answers.items():
        elapsed = answer.result["elapsed"]
        warnings = {"warnings": ["Mind the group."]} if name == "gpu_driver" else {}
        assert answer.result == {**RESULTS[name], **warnings, "elapsed": elapsed}
        assert 0 <= elapsed < 60
        wish = WISHES[name]
        assert wish is not None and answer.serves({**wish, **{key: value for key, value in answer.arguments.items()
                                                              if key in ("required_ids", "planned_modules")}})
    assert played.logged == list(NAMES)


def test_options_are_checked_and_have_their_defaults(played: Played, host: FakeHost) -> None:
    played.survey(host)
    assert played.asked["gpu_driver"]["timeout"] == 30
    assert played.asked["gpu_driver"]["in_use"] == "fail"
    assert played.asked["region_verify"]["probe"] == "read"


def test_what_a_role_hands_on_is_handed_on(played: Played, host: FakeHost) -> None:
    found = played.survey(host)
    assert found.answers["dkms_module"].arguments["required_ids"] == ["10de:2342", "10de:2941"]
    # a real run of gpu_driver does not look at it, and a check run does
    assert played.asked["gpu_driver"]["planned_modules"] == []
    played.survey(host, check_mode=True)
    assert played.asked["gpu_driver"]["planned_modules"] == [{"module": "m", "driver": "d", "aliases": []}]
    assert found.answers["gpu_driver"].arguments["planned_modules"] == RESULTS["dkms_module"]["provides"]


def test_the_source_goes_to_one_stage_and_its_hash_comes_back(played: Played, host: FakeHost) -> None:
    found = played.survey(host, payload={"_source": "x" * 100_000, "_source_sha256": "y"})
    assert played.asked["dkms_module"]["_source"] == "x" * 100_000
    arguments = found.answers["dkms_module"].arguments
    assert arguments["_source_sha256"] == "y" and "_source" not in arguments
    assert "_source_sha256" not in found.answers["host_config"].arguments


@pytest.mark.parametrize(("name", "result", "why"), [
    ("host_info", PassthroughError("No ACPI."), "No ACPI."),
    ("gpu_info", OSError(5, "Input/output error"), "Input/output error"),
    ("host_config", {"changed": True, "actions": ["write /etc/x"]}, "It would write /etc/x."),
    ("host_config", {"changed": False, "reboot_required": True}, "A reboot is due."),
    ("dkms_module", {"changed": False, "missing_packages": ["dkms"]}, "It has missing packages."),
    ("gpu_driver", {"changed": True}, "It would change something."),
    ("gpu_driver", PassthroughError("GPU in use."), "GPU in use."),
    ("region_verify", {"changed": True, "actions": ["open 0009:01:00.0"]}, "It would open 0009:01:00.0."),
])
def test_it_ends_at_the_first_that_has_something_to_do(played: Played, host: FakeHost, name: str, result: Any,
                                                       why: str) -> None:
    played.results[name] = result
    found = played.survey(host, vms=({"name": "vm"},))
    before = NAMES[:NAMES.index(name)]
    assert tuple(found.answers) == before
    assert tuple(played.asked) == (*before, name)
    assert found.open_stage == name
    assert found.why is not None and why in found.why
    assert host.libvirt.log == []


def test_it_ends_before_what_it_is_not_asked(played: Played, host: FakeHost) -> None:
    found = played.survey(host, dkms_module=None)
    assert (tuple(found.answers), found.open_stage, found.why) == (NAMES[:3], "dkms_module", "It was not asked.")


@pytest.mark.parametrize(("wish", "why"), [
    ({"gpus": GPUS, "probe": "all"}, "value of probe must be one of"),
    ({"gpus": GPUS, "colour": "red"}, "colour"),
    ({"gpus": [{}]}, "one of the following is required"),
    ({"gpus": GPUS, "timeout": "soon"}, "timeout"),
])
def test_bad_options_are_left_to_the_module(played: Played, host: FakeHost, wish: dict[str, Any], why: str) -> None:
    found = played.survey(host, region_verify=wish)
    assert found.open_stage == "region_verify" and found.why is not None and why in found.why
    assert "region_verify" not in played.asked


@pytest.mark.parametrize("wish", [{"hugepages": 5}, {"kernel_settings": {1: 2}}, {"modules_load": {"a": 1}}])
def test_options_of_a_wrong_form_are_left_to_it_too(played: Played, host: FakeHost, wish: dict[str, Any]) -> None:
    found = played.survey(host, host_config=wish)
    assert (tuple(found.answers), found.open_stage) == (NAMES[:2], "host_config")
    assert found.why and "host_config" not in played.asked


def test_rules_between_options_hold(played: Played, host: FakeHost) -> None:
    found = played.survey(host, dkms_module={"signing_key": "/k"})
    assert found.open_stage == "dkms_module" and "signing_certificate" in str(found.why)


def test_nothing_is_unsettled_about_a_plain_result() -> None:
    assert unsettled({"changed": False, "actions": [], "reboot_required": False, "missing_packages": []}) is None


def defined(host: FakeHost, name: str, autostart: Optional[bool] = None) -> dict[str, Any]:
    want = Wanted(name, DOMAIN.format(name=name, memory=1024), True, "", autostart)
    make_present(host, want, check=False)
    return make_present(host, want, check=False)


def test_domains_as_they_were_defined_are_answered(played: Played, host: FakeHost) -> None:
    real = {name: defined(host, name, autostart) for name, autostart in (("one", None), ("two", True))}
    found = played.survey(host, vms=({"name": "one"}, {"name": "two", "autostart": True}))
    assert found.open_stage is None
    for name, result in real.items():
        answer = found.answers[f"domain_xml {name}"].result
        assert {**answer, "elapsed": 0} == {**result, "elapsed": 0}


@pytest.mark.parametrize("vm", [
    {"name": "other"}, {"name": "late", "autostart": True}, {"name": "vm; destroy vm"}, {"name": "edited"}])
def test_a_domain_that_is_otherwise_is_not(played: Played, host: FakeHost, vm: dict[str, Any]) -> None:
    defined(host, "vm")
    defined(host, "late")
    defined(host, "edited")
    host.libvirt.domains["edited"] += "<!-- by hand -->"
    found = played.survey(host, vms=({"name": "vm"}, vm))
    assert list(found.answers)[-1] == "domain_xml vm"
    assert found.open_stage == "domain_xml"


def test_a_name_that_is_there_twice_is_left_to_the_module(played: Played, host: FakeHost) -> None:
    defined(host, "vm")
    found = played.survey(host, vms=({"name": "vm"}, {"name": "vm"}))
    assert (tuple(found.answers), found.open_stage) == (NAMES, "domain_xml")


def test_libvirt_that_is_down_is_left_to_the_module(played: Played, host: FakeHost) -> None:
    defined(host, "vm")
    host.libvirt.down = "Connection refused"
    found = played.survey(host, vms=({"name": "vm"},))
    assert found.open_stage == "domain_xml" and "Connection refused" in str(found.why)


def test_a_running_domain_with_something_else_is_told(played: Played, host: FakeHost) -> None:
    defined(host, "vm")
    host.libvirt.live["vm"] = DOMAIN.format(name="vm", memory=512)
    answer = played.survey(host, vms=({"name": "vm"},)).answers["domain_xml vm"]
    assert answer.result["restart_required"] is True
    assert answer.result == {**defined(host, "vm"), "elapsed": answer.result["elapsed"]}


def module(check_mode: bool = False) -> Any:
    params = {**WISHES, "vms": [], "_payload": None}
    return SimpleNamespace(params=params, check_mode=check_mode, log=lambda _line: None)


def test_the_modules_result(played: Played, host: FakeHost) -> None:
    result = stage._work(module(), host)
    assert (result["changed"], result["settled"]) == (False, list(NAMES))
    assert (result["open_stage"], result["why"], list(result["answers"])) == (None, None, list(NAMES))
    assert all(unpack_answer(packed) for packed in result["answers"].values())


@pytest.mark.parametrize(("check_mode", "settled"), [(False, NAMES[:2]), (True, NAMES)])
def test_while_another_run_is_at_work_only_what_reads_is_answered(played: Played, host: FakeHost, check_mode: bool,
                                                                  settled: tuple[str, ...]) -> None:
    with host_lock(host):
        result = stage._work(module(check_mode), host)
    assert tuple(result["settled"]) == settled
    assert check_mode or "Another run of nvgrace.passthrough" in result["why"]
