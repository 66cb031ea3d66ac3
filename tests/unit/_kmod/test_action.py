# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller side: one call to the host, with the source where it is needed."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleError

from ansible_collections.nvgrace.passthrough.plugins.action import dkms_module
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.collect import collect
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.prebuilt import (
    describe_module,
    pack_modules,
    unpack_modules,
)
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.source import read_conf, unpack
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.store import MANIFEST, read_content, read_store
from ansible_collections.nvgrace.passthrough.plugins.module_utils._survey.answer import Answer
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils import kmod, stage
from ansible_collections.nvgrace.passthrough.tests.unit._kmod import elf

RELEASE = "6.17.0-1008-nvidia-64k"
CONTENT = elf.signed(elf.module(RELEASE), "Site", b"\x11")
TREE = collect(str(kmod.SHIPPED_SOURCE))
ENTRY = describe_module(CONTENT, RELEASE, "1.0.0", TREE.sha256, None)
WANTED = [{"kernel": RELEASE, "machine": "aarch64"}]


class Recorder(dkms_module.ActionModule):
    """Everything of Ansible that the plugin touches, played; ``answers`` are the module's, one a call."""

    def __init__(self, arguments: dict[str, Any], async_seconds: int = 0, check_mode: bool = False,
                 answers: Sequence[dict[str, Any]] = ({"changed": True},)) -> None:
        self._task = SimpleNamespace(args=arguments, async_val=async_seconds, action="dkms_module",
                                     check_mode=check_mode, diff=False, no_log=False)
        self.answers = list(answers)
        self._connection = SimpleNamespace(has_native_async=False, _shell=SimpleNamespace(tmpdir="/tmp/x"))
        self.calls: list[dict[str, Any]] = []
        self.removed: list[str] = []

    def _execute_module(self, **call: Any) -> dict[str, Any]:
        self.calls.append(call)
        return dict(self.answers.pop(0))

    def _remove_tmp_path(self, path: str, force: bool = False) -> None:
        self.removed.append(path)

    def _find_needle(self, dirname: str, needle: str) -> str:
        if not Path(needle).exists():
            raise AnsibleError(f"Could not find {needle} in {dirname}.")
        return needle


@pytest.fixture(autouse=True)
def without_base_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage.ActionBase, "run", lambda *_arguments: {})


def test_present_sends_the_collections_source_in_one_call() -> None:
    action = Recorder({"kernels": ["running"]})
    assert action.run(task_vars={"a": 1}) == {"changed": True}
    (call,) = action.calls
    assert (call["module_name"], call["task_vars"], call["wrap_async"]) == (
        "nvgrace.passthrough.dkms_module", {"a": 1}, False)
    sent = call["module_args"]
    assert sent["kernels"] == ["running"]
    assert read_conf(unpack(sent["_source"], sent["_source_sha256"])).name == "nvgrace-gpu-vfio-pci"
    assert action.removed == ["/tmp/x"]
    assert len(sent["_source"]) < 100_000


def test_absent_sends_no_source() -> None:
    action = Recorder({"state": "absent"})
    action.run()
    assert action.calls[0]["module_args"] == {"state": "absent"}


def test_async_keeps_the_temporary_directory() -> None:
    action = Recorder({"state": "absent"}, async_seconds=600)
    action.run()
    assert action.calls[0]["wrap_async"] is True
    assert action.removed == []


def test_another_source_is_sent_instead(tmp_path: Path) -> None:
    (tmp_path / "dkms.conf").write_text("x")
    action = Recorder({"source": str(tmp_path)})
    action.run()
    sent = action.calls[0]["module_args"]
    assert unpack(sent["_source"], sent["_source_sha256"]).files == (("dkms.conf", b"x"),)


@pytest.mark.parametrize("arguments,sentence", [
    ({"source": "/nothing/there"}, "Could not find"),
    ({"source": "/proc"}, "has no dkms.conf"),
    ({"_source": "x", "_source_sha256": "y"}, "Unsupported parameters for dkms_module: _source, _source_sha256"),
    ({"state": "exported"}, "'dest' must be an absolute path"),
    ({"state": "exported", "dest": "modules"}, "'dest' must be an absolute path"),
    ({"prebuilt": "modules"}, "'prebuilt' must be an absolute path"),
    ({"prebuilt": ""}, "'prebuilt' must be an absolute path"),
    ({"prebuilt": "/modules\0"}, "'prebuilt' must be an absolute path"),
    ({"prebuilt": "/proc/1/mem"}, "/proc/1/mem on the controller cannot be read: Not a directory"),
])
def test_bad_input_never_reaches_the_host(arguments: dict[str, Any], sentence: str) -> None:
    action = Recorder(arguments)
    with pytest.raises(AnsibleActionFail, match=sentence):
        action.run()
    assert action.calls == []


def test_the_source_is_found_from_an_installed_collection(tmp_path: Path) -> None:
    root = tmp_path / "ansible_collections" / "nvgrace" / "passthrough"
    plugin = root / "plugins" / "plugin_utils" / "kmod.py"
    plugin.parent.mkdir(parents=True)
    shutil.copy(kmod.__file__, plugin)
    scope: dict[str, Any] = {"__file__": str(plugin), "__name__": "installed"}
    exec(compile(plugin.read_text(), str(plugin), "exec"), scope)
    assert scope["SHIPPED_SOURCE"] == root.resolve() / "files" / "kmod"


def exported(**answer: Any) -> dict[str, Any]:
    return {"changed": False, "exports": [ENTRY.as_json()], "_modules": pack_modules({}), **answer}


def test_an_export_is_kept_with_its_manifest(tmp_path: Path) -> None:
    place = tmp_path / "modules" / RELEASE / "aarch64"
    arguments = {"state": "exported", "kernels": [RELEASE], "dest": str(tmp_path / "modules")}
    first = Recorder(arguments, answers=[exported(_modules=pack_modules({RELEASE: CONTENT}))])
    assert first.run() == {"changed": True, "exports": [ENTRY.as_json()]}
    assert first.calls[0]["module_args"]["_have"] == {}
    assert read_conf(unpack(first.calls[0]["module_args"]["_source"], TREE.sha256)).module == "nvgrace-gpu-vfio-pci"
    assert sorted(os.listdir(place)) == sorted([MANIFEST, ENTRY.file])
    assert (place / ENTRY.file).read_bytes() == CONTENT
    assert (place / ENTRY.file).stat().st_mode & 0o777 == 0o644

    again = Recorder(arguments, answers=[exported()])
    assert again.run() == {"changed": False, "exports": [ENTRY.as_json()]}
    assert again.calls[0]["module_args"]["_have"] == {f"{RELEASE}/aarch64": ENTRY.sha256}

    (place / ENTRY.file).unlink()
    lost = Recorder(arguments, answers=[exported(_modules=pack_modules({RELEASE: CONTENT}))])
    assert lost.run()["changed"]
    assert lost.calls[0]["module_args"]["_have"] == {}


def test_a_newer_export_replaces_the_older(tmp_path: Path) -> None:
    arguments = {"state": "exported", "kernels": [RELEASE], "dest": str(tmp_path)}
    Recorder(arguments, answers=[exported(_modules=pack_modules({RELEASE: CONTENT}))]).run()
    newer = CONTENT.replace(b"ABCD", b"EFGH")
    entry = describe_module(newer, RELEASE, "1.0.0", TREE.sha256, None)
    Recorder(arguments, answers=[exported(exports=[entry.as_json()], _modules=pack_modules({RELEASE: newer}))]).run()
    assert sorted(os.listdir(tmp_path / RELEASE / "aarch64")) == sorted([MANIFEST, entry.file])
    assert [found.sha256 for found in read_store(str(tmp_path))] == [entry.sha256]


def test_a_check_run_keeps_nothing(tmp_path: Path) -> None:
    action = Recorder({"state": "exported", "dest": str(tmp_path)}, check_mode=True,
                      answers=[exported(changed=True, _modules=pack_modules({RELEASE: CONTENT}))])
    assert action.run()["changed"]
    assert os.listdir(tmp_path) == []


def test_a_failed_export_is_returned_as_it_is(tmp_path: Path) -> None:
    answer = {"failed": True, "msg": "no headers", "missing_packages": ["linux-headers-x"]}
    action = Recorder({"state": "exported", "dest": str(tmp_path)}, answers=[answer])
    assert action.run() == {**answer, "changed": False}


def test_a_module_that_arrives_damaged_is_not_kept(tmp_path: Path) -> None:
    action = Recorder({"state": "exported", "dest": str(tmp_path)},
                      answers=[exported(_modules=pack_modules({RELEASE: CONTENT + b"x"}))])
    with pytest.raises(AnsibleActionFail, match="arrived damaged on the controller"):
        action.run()
    assert os.listdir(tmp_path) == []


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / RELEASE).write_text("a file")
    action = Recorder({"state": "exported", "dest": str(tmp_path)},
                      answers=[exported(_modules=pack_modules({RELEASE: CONTENT}))])
    with pytest.raises(AnsibleActionFail, match="on the controller cannot be written"):
        action.run()


def stored(directory: Path) -> Path:
    place = directory / RELEASE / "aarch64"
    Recorder({"state": "exported", "dest": str(directory)},
             answers=[exported(_modules=pack_modules({RELEASE: CONTENT}))]).run()
    return place


def test_a_converged_host_costs_one_call(tmp_path: Path) -> None:
    stored(tmp_path)
    action = Recorder({"prebuilt": str(tmp_path)}, answers=[{"changed": False}])
    assert action.run() == {"changed": False}
    (call,) = action.calls
    sent = call["module_args"]
    assert (sent["_prebuilt"], sent["_source_sha256"], sent["_aliases"]) == ([ENTRY.as_json()], TREE.sha256,
                                                                             list(TREE.aliases()))
    assert "_modules" not in sent and "_source" not in sent


def test_a_host_gets_the_modules_that_it_asks_for(tmp_path: Path) -> None:
    stored(tmp_path)
    action = Recorder({"prebuilt": str(tmp_path)}, answers=[{"changed": False, "_wanted": WANTED}, {"changed": True}])
    assert action.run() == {"changed": True}
    assert unpack_modules(action.calls[1]["module_args"]["_modules"]) == {RELEASE: CONTENT}
    assert action.calls[1]["module_args"]["_prebuilt"] == action.calls[0]["module_args"]["_prebuilt"]


def test_seconds_of_both_calls_count(tmp_path: Path) -> None:
    stored(tmp_path)
    action = Recorder({"prebuilt": str(tmp_path)}, answers=[{"changed": False, "_wanted": WANTED, "elapsed": 0.25},
                                                            {"changed": True, "elapsed": 1.5}])
    assert action.run()["elapsed"] == 1.75


@pytest.mark.parametrize(("damage", "sentence", "calls"), [
    (lambda place: (place / MANIFEST).write_text("{"), "is not the manifest of a module", 0),
    (lambda place: (place / ENTRY.file).write_bytes(b"evil"), "is not the module of its manifest", 1),
    (lambda place: (place / ENTRY.file).unlink(), "is not there", 1),
    (lambda place: ((place / ENTRY.file).unlink(), (place / ENTRY.file).mkdir()), "controller cannot be read", 1),
])
def test_a_damaged_directory_is_told(tmp_path: Path, damage: Any, sentence: str, calls: int) -> None:
    damage(stored(tmp_path))
    action = Recorder({"prebuilt": str(tmp_path)}, answers=[{"changed": False, "_wanted": WANTED}])
    with pytest.raises(AnsibleActionFail, match=sentence):
        action.run()
    assert len(action.calls) == calls


def test_a_directory_that_does_not_exist_holds_nothing(tmp_path: Path) -> None:
    assert read_store(str(tmp_path / "none")) == []
    (tmp_path / "kernel" / "machine").mkdir(parents=True)
    assert read_store(str(tmp_path)) == []


def test_a_write_that_fails_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    action = Recorder({"state": "exported", "dest": str(tmp_path)},
                      answers=[exported(_modules=pack_modules({RELEASE: CONTENT}))])
    with pytest.raises(AnsibleActionFail, match="cannot be written: No space left"):
        action.run()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("arguments", [{"state": "exported", "dest": "/x"}, {"prebuilt": "/x"}])
def test_modules_are_not_exchanged_in_the_background(arguments: dict[str, Any]) -> None:
    with pytest.raises(AnsibleActionFail, match="in the background"):
        Recorder(arguments, async_seconds=60).run()


def test_content_is_checked_again_before_it_is_sent(tmp_path: Path) -> None:
    stored(tmp_path)
    assert read_content(str(tmp_path), ENTRY) == CONTENT


def test_a_long_build_says_so_and_stops_saying_so(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Slow(Recorder):
        def _execute_module(self, **call: Any) -> dict[str, Any]:
            deadline = time.monotonic() + 60
            while len(told) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            return super()._execute_module(**call)

    monkeypatch.setattr(dkms_module, "SECONDS", 0.05)
    monkeypatch.setattr(dkms_module, "Display", lambda: SimpleNamespace(display=told.append))
    before = threading.active_count()
    assert Slow({}).run(task_vars={"inventory_hostname": "rack1"}) == {"changed": True}
    assert len(told) >= 2
    assert all(line.startswith("rack1: dkms_module is at ") for line in told)
    assert threading.active_count() == before


def test_a_quick_build_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(dkms_module, "Display", lambda: SimpleNamespace(display=told.append))
    Recorder({}).run()
    assert told == []


@pytest.mark.parametrize("prebuilt", [False, True])
def test_a_survey_that_asked_the_same_spares_the_call(tmp_path: Path, prebuilt: bool) -> None:
    stored(tmp_path)
    options = {"kernels": ["running"], **({"prebuilt": str(tmp_path)} if prebuilt else {})}
    extra = {"_source_sha256": TREE.sha256,
             **({"_prebuilt": [ENTRY.as_json()], "_aliases": list(TREE.aliases())} if prebuilt else {})}
    asked = {"answers": {"dkms_module": Answer({**options, **extra}, {"changed": False, "elapsed": 1}).pack()},
             "asked_at": str(time.monotonic())}
    action = Recorder({**options, "survey": "asked"})
    assert (action.run(task_vars={"asked": asked}), action.calls) == ({"changed": False, "elapsed": 1}, [])

    other = Recorder({**options, "force": True, "survey": "asked"})
    other.run(task_vars={"asked": asked})
    assert len(other.calls) == 1 and "survey" not in other.calls[0]["module_args"]


def test_a_survey_that_asked_for_another_source_does_not(tmp_path: Path) -> None:
    (tmp_path / "dkms.conf").write_text("x")
    answer = Answer({"source": str(tmp_path), "_source_sha256": TREE.sha256}, {"changed": False})
    asked = {"answers": {"dkms_module": answer.pack()}, "asked_at": str(time.monotonic())}
    action = Recorder({"source": str(tmp_path), "survey": "asked"})
    action.run(task_vars={"asked": asked})
    assert len(action.calls) == 1


@pytest.mark.parametrize("steps", [["Run 'mokutil --import /x' as root.", "Reboot\x1b[2J."], [], None])
def test_the_steps_at_the_console_are_printed_for_terminals_that_obey_nothing(steps: Any, monkeypatch: Any) -> None:
    printed: list[str] = []
    monkeypatch.setattr(dkms_module.Display, "display", lambda _self, text, *_more, **_options: printed.append(text))
    signing = {"certificate_subject": "Site modules", "enrolment_steps": steps}
    Recorder({"state": "present"}, answers=[{"changed": False, "signing": signing}]).run(
        task_vars={"inventory_hostname": "gpu01"})
    if not steps:
        assert printed == []
        return
    (text,) = printed
    assert text.splitlines()[0].startswith("gpu01: this kernel loads signed modules only and does not trust the "
                                           "certificate Site modules.")
    assert text.splitlines()[1:] == ["  1. Run 'mokutil --import /x' as root.", "  2. Reboot\\x1b[2J."]
