# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the checks here have in common: the files they look at, and how they end."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def tracked(source: Path = ROOT, *, new: bool = False) -> list[str]:
    """Names of the files that git tracks in SOURCE and that are still there, in order; with ``new`` also of those that
    it would take with the next commit. CalledProcessError where this is no checkout."""
    argv = ["git", "ls-files", "-z", *(["--cached", "--others", "--exclude-standard"] if new else [])]
    done = subprocess.run(argv, cwd=source, check=True, capture_output=True, text=True)
    return sorted({name for name in done.stdout.split("\0") if name and (source / name).is_file()})


def copy_tracked(target: Path, source: Path = ROOT, *, new: bool = False) -> None:
    """These files with their modes below TARGET."""
    for name in tracked(source, new=new):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, target / name)


def finish(problems: Sequence[str], said: str = "") -> int:
    """Prints each problem, then what was looked at and how many there are. Returns the exit status."""
    for problem in problems:
        print(problem)
    print(f"{said}{len(problems)} problems")
    return 1 if problems else 0
