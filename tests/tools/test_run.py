# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of tests/run: what a run that has a limit leaves out, and what one that fails does not begin."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[1] / "run"


@pytest.fixture(name="program")
def _program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    loader = SourceFileLoader("stages_program", str(PROGRAM))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, loader.name, module)  # dataclasses look for it there
    loader.exec_module(module)
    return module


class _Provider:
    """Provides nothing, and notes who waited."""

    def __init__(self) -> None:
        self.waited: list[str] = []

    def wait(self, stage: str) -> None:
        self.waited.append(stage)


@pytest.mark.parametrize(("name", "elapsed", "minutes", "skipped"), [
    ("fleet", 45 * 60, 80, False),
    ("fleet", 60 * 60, 80, False),
    ("fleet", 61 * 60, 80, True),
    ("fleet", 61 * 60, None, False),
    ("guest", 200 * 60, 80, False),
])
def test_only_a_spare_stage_that_does_not_fit_is_left_out(program: ModuleType, name: str, elapsed: float,
                                                          minutes: float | None, skipped: bool) -> None:
    why = program.left_out(name, elapsed, minutes)
    assert (why is not None) is skipped
    if skipped:
        assert why == "fleet is skipped: it would take about 20 minutes, and 61 of 80 are over; tests/run fleet runs it"


def _stages(program: ModuleType, monkeypatch: pytest.MonkeyPatch, **tallies: Any) -> None:
    monkeypatch.setattr(program, "STAGES", {name: lambda tally=tally: tally for name, tally in tallies.items()})


def test_a_stage_left_out_counts_as_skipped_and_is_not_provided_for(
        program: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _stages(program, monkeypatch, lint=program.Tally(passed=3), fleet=program.Tally(failed=1))
    provider = _Provider()
    total = program.stages(["lint", "fleet"], provider, 0.0)
    assert (total.passed, total.failed, total.skipped) == (3, 0, 1)
    assert provider.waited == ["lint"]
    assert "=== fleet: 0 passed, 0 failed, 1 skipped" in capsys.readouterr().out


def test_a_failure_ends_the_run_and_names_the_rest(program: ModuleType, monkeypatch: pytest.MonkeyPatch,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    _stages(program, monkeypatch, lint=program.Tally(failed=1), unit=program.Tally(passed=1))
    total = program.stages(["lint", "unit"], _Provider(), None)
    assert (total.passed, total.failed) == (0, 1)
    assert "=== not run because lint failed: unit" in capsys.readouterr().out
