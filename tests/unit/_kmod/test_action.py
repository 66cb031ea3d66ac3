# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller side: one call to the host, with the source where it is needed."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleError

from ansible_collections.nvgrace.passthrough.plugins.action import dkms_module
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.source import read_conf, unpack


class Recorder(dkms_module.ActionModule):
    """Everything of Ansible that the plugin touches, played."""

    def __init__(self, arguments: dict[str, Any], async_seconds: int = 0) -> None:
        self._task = SimpleNamespace(args=arguments, async_val=async_seconds, action="dkms_module",
                                     check_mode=False, diff=False, no_log=False)
        self._connection = SimpleNamespace(has_native_async=False, _shell=SimpleNamespace(tmpdir="/tmp/x"))
        self.calls: list[dict[str, Any]] = []
        self.removed: list[str] = []

    def _execute_module(self, **call: Any) -> dict[str, Any]:
        self.calls.append(call)
        return {"changed": True}

    def _remove_tmp_path(self, path: str, force: bool = False) -> None:
        self.removed.append(path)

    def _find_needle(self, dirname: str, needle: str) -> str:
        if not Path(needle).exists():
            raise AnsibleError(f"Could not find {needle} in {dirname}.")
        return needle


@pytest.fixture(autouse=True)
def without_base_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dkms_module.ActionBase, "run", lambda *_arguments: {})


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
])
def test_bad_input_never_reaches_the_host(arguments: dict[str, Any], sentence: str) -> None:
    action = Recorder(arguments)
    with pytest.raises(AnsibleActionFail, match=sentence):
        action.run()
    assert action.calls == []


def test_the_source_is_found_from_an_installed_collection(tmp_path: Path) -> None:
    root = tmp_path / "ansible_collections" / "nvgrace" / "passthrough"
    plugin = root / "plugins" / "action" / "dkms_module.py"
    plugin.parent.mkdir(parents=True)
    shutil.copy(dkms_module.__file__, plugin)
    scope: dict[str, Any] = {"__file__": str(plugin), "__name__": "installed"}
    exec(compile(plugin.read_text(), str(plugin), "exec"), scope)
    assert scope["SHIPPED_SOURCE"] == root.resolve() / "files" / "kmod"
