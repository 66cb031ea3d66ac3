# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of region_verify: it passes everything on, and says that it still waits."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.nvgrace.passthrough.plugins.action import region_verify
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils import stage

ARGUMENTS = {"gpus": [{"address": "0009:01:00.0"}], "probe": "full"}


class Recorder(region_verify.ActionModule):
    """Everything of Ansible that the plugin touches, played."""

    def __init__(self, told: list[str] | None = None, async_val: int = 0) -> None:
        """The module ends at once, or when two lines have been told."""
        self._task = SimpleNamespace(args=ARGUMENTS, async_val=async_val)
        self._connection = SimpleNamespace(has_native_async=False, _shell=SimpleNamespace(tmpdir="/tmp/x"))
        self.told = told
        self.calls: list[dict[str, Any]] = []
        self.removed: list[str] = []

    def _execute_module(self, **call: Any) -> dict[str, Any]:
        self.calls.append(call)
        deadline = time.monotonic() + 60
        while self.told is not None and len(self.told) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        return {"changed": True}

    def _remove_tmp_path(self, path: str) -> None:
        self.removed.append(path)


@pytest.fixture(autouse=True)
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr(stage.ActionBase, "run", lambda *_arguments: {})
    monkeypatch.setattr(region_verify, "Display", lambda: SimpleNamespace(display=told.append))
    return told


def test_a_quick_run_says_nothing(lines: list[str]) -> None:
    action = Recorder()
    assert action.run(task_vars={"inventory_hostname": "rack1"}) == {"changed": True}
    assert action.calls == [{"module_name": "nvgrace.passthrough.region_verify", "module_args": ARGUMENTS,
                             "task_vars": {"inventory_hostname": "rack1"}, "wrap_async": False}]
    assert (lines, action.removed) == ([], ["/tmp/x"])


def test_a_long_run_says_so_and_stops_saying_so(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(region_verify, "SECONDS", 0.05)
    before = threading.active_count()
    Recorder(lines).run(task_vars={"inventory_hostname": "rack1"})
    assert len(lines) >= 2
    assert all(line.startswith("rack1: region_verify is at ") for line in lines)
    assert threading.active_count() == before


def test_a_task_in_the_background_keeps_its_files(lines: list[str]) -> None:
    action = Recorder(async_val=600)
    action.run()
    assert (action.calls[0]["wrap_async"], action.removed, lines) == (True, [], [])
