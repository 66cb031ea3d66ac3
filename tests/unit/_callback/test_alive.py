# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The callback that names long tasks: which lines it says when, and that a run of Ansible shows them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.nvgrace.passthrough.plugins.callback import alive

ROOT = Path(__file__).resolve().parents[3]
NAME = "nvgrace.passthrough.alive"


def task(name: str) -> Any:
    return SimpleNamespace(get_name=lambda: name)


def host(name: str) -> Any:
    return SimpleNamespace(name=name)


@pytest.fixture
def callback(monkeypatch: pytest.MonkeyPatch) -> alive.CallbackModule:
    """Begun at second 0 of a clock that stands still; named from 30 seconds on."""
    monkeypatch.setattr(alive, "time", SimpleNamespace(monotonic=lambda: 0.0))
    made = alive.CallbackModule()
    made._seconds = 30.0
    return made


def test_a_task_is_named_from_the_given_seconds_on(callback: alive.CallbackModule) -> None:
    callback.v2_runner_on_start(host("rack1"), task("Install the kernel module"))
    assert callback.lines(29.9) == []
    assert callback.lines(30.0) == ["Install the kernel module: still at work after 30 seconds on rack1"]
    assert callback.lines(95.2) == ["Install the kernel module: still at work after 95 seconds on rack1"]


@pytest.mark.parametrize("end", ["ok", "failed", "skipped", "unreachable"])
def test_a_task_that_has_ended_is_not_named(callback: alive.CallbackModule, end: str) -> None:
    for name in ("rack1", "rack2"):
        callback.v2_runner_on_start(host(name), task("Reboot and wait"))
    getattr(callback, f"v2_runner_on_{end}")(SimpleNamespace(host=host("rack1")))
    assert callback.lines(40.0) == ["Reboot and wait: still at work after 40 seconds on rack2"]


def test_a_host_is_named_with_its_newest_task(callback: alive.CallbackModule) -> None:
    """An include ends without a result of its own."""
    callback.v2_runner_on_start(host("rack1"), task("Include"))
    callback.v2_runner_on_start(host("rack1"), task("Build"))
    assert callback.lines(40.0) == ["Build: still at work after 40 seconds on rack1"]


def test_tasks_at_once_have_a_line_each(callback: alive.CallbackModule) -> None:
    """As strategy free has it."""
    callback.v2_runner_on_start(host("rack1"), task("Build"))
    callback.v2_runner_on_start(host("rack2"), task("Verify"))
    assert [line.partition(":")[0] for line in callback.lines(40.0)] == ["Build", "Verify"]


@pytest.mark.parametrize(("count", "text"), [
    (1, "h0"), (5, "h0, h1, h2, h3, h4"), (6, "h0, h1, h2, h3, h4 and 1 more"), (9, "h0, h1, h2, h3, h4 and 4 more"),
])
def test_many_hosts_are_a_short_line(count: int, text: str) -> None:
    assert alive.names([f"h{number}" for number in reversed(range(count))]) == text


def test_the_thread_ends_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    callback = alive.CallbackModule()
    monkeypatch.setattr(callback, "get_option", lambda _name: 30.0)
    callback.v2_playbook_on_start(None)
    assert threading.active_count() == before + 1
    callback.v2_playbook_on_stats(None)
    assert threading.active_count() == before


@pytest.mark.parametrize("strategy", ["linear", "free"])
def test_a_run_shows_it(tmp_path: Path, strategy: str) -> None:
    """A task waits for a file that is made when the line was seen."""
    seen, playbook = tmp_path / "seen", tmp_path / "play.yml"
    playbook.write_text(json.dumps([{
        "hosts": "all", "gather_facts": False, "strategy": strategy, "tasks": [
            {"name": "Short", "ansible.builtin.debug": {"msg": "x"}},
            {"name": "Long", "ansible.builtin.command": {
                "argv": ["sh", "-c", f"for _ in $(seq 600); do test -e {seen} && exit; sleep 0.1; done; exit 1"]}},
        ]}]))
    program = Path(sys.executable).parent / "ansible-playbook"
    variables = {"ANSIBLE_CALLBACKS_ENABLED": NAME, "NVGRACE_ALIVE_SECONDS": "0.5", "ANSIBLE_NOCOLOR": "1",
                 "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"), "ANSIBLE_PYTHON_INTERPRETER": sys.executable}
    with subprocess.Popen([str(program), "-i", "a1,a2,", "-c", "local", str(playbook)], cwd=tmp_path, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                          env={name: value for name, value in {**os.environ, **variables}.items()
                               if name != "PYTHONUNBUFFERED"}) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Long: still at work after ") and line.rstrip().endswith(" on a1, a2"):
                seen.touch()
    assert seen.exists(), "".join(lines)
    assert process.returncode == 0, "".join(lines)
