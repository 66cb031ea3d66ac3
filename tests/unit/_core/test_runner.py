# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""What run_module adds to the result of the work."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core import runner
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.module import Module


def run(work: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    monkeypatch.setattr(basic, "_PARSED_MODULE_ARGS", {}, raising=False)
    with patch_module_args({}), pytest.raises(SystemExit):
        runner.run_module(Module(argument_spec={}), work, needs_root=False, locked=False)
    loaded: dict[str, Any] = json.loads(capsys.readouterr().out)
    return loaded


def test_result_has_the_seconds_of_the_work(monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter([100.0, 102.5])
    monkeypatch.setattr(runner.time, "monotonic", lambda: next(clock, time.time()))
    assert run(lambda _module, _host: {"changed": False}, monkeypatch, capsys)["elapsed"] == 2.5


def test_failure_keeps_its_sentence_and_its_details(monkeypatch: pytest.MonkeyPatch,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    def work(_module: Module, _host: Host) -> dict[str, Any]:
        raise PassthroughError("No.", devices=[])

    result = run(work, monkeypatch, capsys)
    assert (result["failed"], result["msg"], result["devices"], "elapsed" in result) == (True, "No.", [], False)
