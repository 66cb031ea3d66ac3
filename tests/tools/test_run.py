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


@pytest.mark.parametrize(("name", "elapsed", "others", "minutes", "skipped"), [
    ("fleet", 45 * 60, 40 * 60, 80, False),
    ("fleet", 62 * 60, 40 * 60, 80, False),
    ("fleet", 63 * 60, 40 * 60, 80, True),
    ("fleet", 63 * 60, 20 * 60, 80, False),
    ("fleet", 200 * 60, 40 * 60, None, False),
    ("refusals", 69 * 60, 69 * 60, 75, True),
    ("guest", 55 * 60, 50 * 60, 75, False),
    ("behaviour", 200 * 60, 200 * 60, 80, False),
])
def test_only_a_spare_stage_that_does_not_fit_is_left_out(program: ModuleType, name: str, elapsed: float, others: float,
                                                          minutes: float | None, skipped: bool) -> None:
    assert (program.left_out(name, elapsed, others, minutes) is not None) is skipped


def test_who_leaves_a_stage_out_says_why_and_what_runs_it(program: ModuleType) -> None:
    assert program.left_out("fleet", 63 * 60, 40 * 60, 80) == (
        "fleet is skipped: it would take about 18 minutes, and 63 of 80 are over; tests/run fleet runs it")


def test_the_length_of_a_spare_stage_goes_by_the_stages_that_are_none(
        program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(program.time, "monotonic", lambda: clock[0])

    def takes(minutes: float) -> Any:
        def stage() -> Any:
            clock[0] += minutes * 60
            return program.Tally(passed=1)
        return stage

    # Without "refusals", a fleet of 0.45 x 50 would end after 72.5; with it, after 87.5: it is 15 longer, and no more
    monkeypatch.setattr(program, "STAGES", {"lint": takes(50), "refusals": takes(15), "fleet": takes(0)})
    assert program.stages(["lint", "fleet"], _Provider(), 75).skipped == 0
    clock[0] = 0.0
    assert program.stages(["lint", "refusals", "fleet"], _Provider(), 88).skipped == 0
    clock[0] = 0.0
    assert program.stages(["lint", "refusals", "fleet"], _Provider(), 87).skipped == 1


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
