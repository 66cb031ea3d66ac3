# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stages want is made in advance, waited for, and stopped with the run."""

from __future__ import annotations

import time
from pathlib import Path

import provide
import pytest
from provide import Provider, Thing


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(provide, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(provide, "TICK", 0.05)


def shell(name: str, script: str, *stages: str) -> Thing:
    return Thing(name, ["sh", "-c", script], stages)


def test_a_stage_waits_for_its_things_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "made"
    first = shell("one", f"echo begun; sleep 0.3; echo one >>{made}", "early")
    with Provider([first, shell("two", f"sleep 60; echo two >>{made}", "late")]) as provider:
        provider.wait("other")
        provider.wait("early")
        assert made.read_text() == "one\n"
    assert "--- waiting for the one: 0 s  begun\n" in capsys.readouterr().out


def test_the_run_ends_and_so_does_what_it_had_begun(tmp_path: Path) -> None:
    said = tmp_path / "said"
    begin = time.monotonic()
    # Short sleeps: a shell that is interrupted just before "wait" begins sees it only when that has ended.
    script = (f"trap 'echo cleaned >>{said}; exit 1' INT; echo begun >>{said}; "
              f"for _ in $(seq 600); do sleep 0.1; done; echo late >>{said}")
    with Provider([shell("one", script, "s"), shell("two", f"echo two >>{said}", "s")]):
        while not said.exists():
            time.sleep(0.01)
    assert time.monotonic() - begin < 30
    assert said.read_text() == "begun\ncleaned\n"


def test_a_command_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(provide, "PATIENCE", 0.2)
    said = tmp_path / "said"
    thing = shell("one", f"trap '' INT; echo begun >>{said}; sleep 60", "s")
    with Provider([thing]):
        while not said.exists():
            time.sleep(0.01)
    assert thing.status == -9


def test_a_failure_is_told_and_the_next_thing_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "made"
    with Provider([shell("one", "echo no space; exit 3", "s"), shell("two", f"echo two >>{made}", "s")]) as provider:
        provider.wait("s")
    assert "--- the one could not be made in advance, status 3:\nno space\n" in capsys.readouterr().out
    assert made.exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_command_that_cannot_be_started_holds_nobody_up() -> None:
    with Provider([Thing("one", ["no\0program"], ("s",)), shell("two", "exit 0", "s")]) as provider:
        provider.wait("s")


def test_nothing_is_made_for_stages_that_want_nothing() -> None:
    assert provide.things(["lint", "unit"]) == []
    with Provider([]) as provider:
        provider.wait("lint")


@pytest.mark.parametrize(("machine", "expected"), [
    ("x86_64", ["Debian root with compilers", "aliases of Debian's kernels", "image of the emulated host"]),
    ("aarch64", ["image of the emulated host"]),
])
def test_things_of_stages(machine: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provide.platform, "machine", lambda: machine)
    found = provide.things(["fleet", "variants"])
    assert [thing.name for thing in found] == expected
    assert all((provide.ROOT / next(word for word in thing.argv if "/" in word)).exists() for thing in found)
