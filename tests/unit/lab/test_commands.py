# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Long commands: their logs, their failures, and what is left of them when they are killed."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from nvlab import processes
from nvlab.errors import LabError
from nvlab.steps import last_line, run_logged


def test_a_killed_build_leaves_no_process(tmp_path: Path) -> None:
    target = tmp_path / "lab-tmp.thing"
    environment = {**os.environ, processes.BUILD_MARK: str(target)}
    child = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], env=environment, stdout=subprocess.PIPE)
    other = subprocess.Popen(["sleep", "60"], env={**environment, processes.BUILD_MARK: f"{target}2"})
    grandchild = int(child.stdout.readline())
    # A process that is just being started has no environment to read yet.
    deadline = time.monotonic() + 10
    while len(found := {process.pid for process in processes.of_build(target)}) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert found == {child.pid, grandchild}
    processes.end_build(target)
    assert processes.of_build(target) == []
    assert other.poll() is None
    for process in (child, other):
        process.kill()
        process.wait()


@pytest.mark.parametrize(("content", "line"), [
    (None, ""), (b"", ""), (b"one\ntwo\n\n", "two"), (b"\x1b[2J\x1b[01;01H\x1b[=3hBooting\r\n", "Booting"),
    (b"half a \xff character", "half a \ufffd character"), (b"x" * 200, "x" * 100), (b"a\r50 %", "50 %"),
    (b"\x1b]104\x07login:", "login:"),
])
def test_last_line(content: bytes | None, line: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "log").write_bytes(content)
    assert last_line(tmp_path / "log") == line


@pytest.mark.parametrize(("script", "status"), [("echo fine", 0), ("echo the reason; exit 3", 3)])
def test_run_logged(script: str, status: int, tmp_path: Path) -> None:
    log = tmp_path / "log"
    if status == 0:
        run_logged(["sh", "-c", script], log)
        assert log.read_text() == "fine\n"
    else:
        with pytest.raises(LabError, match="(?s)sh failed with status 3.*the reason"):
            run_logged(["sh", "-c", script], log)
