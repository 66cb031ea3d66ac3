# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""noxfile.py: each session sets up and runs the stage of tests/run that has its name."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOX = ROOT / ".venv" / "bin" / "nox"


def sessions() -> list[str]:
    listed = subprocess.run([NOX, "--noxfile", ROOT / "noxfile.py", "--list-sessions"], check=True, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    return re.findall(r"^[*-] (\w+)", listed, re.MULTILINE)


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_each_session_is_a_stage() -> None:
    assert sessions() == ["lint", "unit", "package", "sanity", "cores"]
    for name in sessions():
        assert f"def {name}() -> Tally:" in (ROOT / "tests" / "run").read_text()


@pytest.mark.parametrize(("status", "code"), [(0, 0), (3, 1)])
def test_a_session_is_its_stage_and_fails_with_it(tmp_path: Path, status: int, code: int) -> None:
    """In a checkout whose setup and gate only write down that they were called."""
    shutil.copy(ROOT / "noxfile.py", tmp_path)
    program(tmp_path / "tests" / "setup", "echo setup >> called")
    program(tmp_path / ".venv" / "bin" / "python", f'echo "$@" >> called; exit {status}')
    done = subprocess.run([NOX, "--session", "package"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert (tmp_path / "called").read_text().splitlines() == ["setup", "tests/run package"]
