# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of region_verify: it passes everything on, and says that it still waits."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.nvgrace.passthrough.plugins.action import region_verify

ARGUMENTS = {"gpus": [{"address": "0009:01:00.0"}], "probe": "full"}


class Recorder(region_verify.ActionModule):
    """Everything of Ansible that the plugin touches, played."""

    def __init__(self, seconds: float, async_val: int = 0) -> None:
        self._task = SimpleNamespace(args=ARGUMENTS, async_val=async_val)
        self._connection = SimpleNamespace(has_native_async=False, _shell=SimpleNamespace(tmpdir="/tmp/x"))
        self.seconds = seconds
        self.calls: list[dict[str, Any]] = []
        self.removed: list[str] = []

    def _execute_module(self, **call: Any) -> dict[str, Any]:
        self.calls.append(call)
        time.sleep(self.seconds)
        return {"changed": True}

    def _remove_tmp_path(self, path: str) -> None:
        self.removed.append(path)


@pytest.fixture(autouse=True)
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr(region_verify.ActionBase, "run", lambda *_arguments: {})
    monkeypatch.setattr(region_verify, "Display", lambda: SimpleNamespace(display=told.append))
    monkeypatch.setattr(region_verify, "SECONDS", 0.1)
    return told


def test_a_quick_run_says_nothing(lines: list[str]) -> None:
    action = Recorder(0)
    assert action.run(task_vars={"inventory_hostname": "rack1"}) == {"changed": True}
    assert action.calls == [{"module_name": "nvgrace.passthrough.region_verify", "module_args": ARGUMENTS,
                             "task_vars": {"inventory_hostname": "rack1"}, "wrap_async": False}]
    assert (lines, action.removed) == ([], ["/tmp/x"])


def test_a_long_run_says_so_and_stops_saying_so(lines: list[str]) -> None:
    Recorder(0.35).run(task_vars={"inventory_hostname": "rack1"})
    assert 2 <= len(lines) <= 4
    assert lines[0].startswith("rack1: region_verify is at 0 seconds; ")
    told = list(lines)
    time.sleep(0.25)
    assert lines == told


def test_a_task_in_the_background_keeps_its_files(lines: list[str]) -> None:
    action = Recorder(0, async_val=600)
    action.run()
    assert (action.calls[0]["wrap_async"], action.removed, lines) == (True, [], [])
