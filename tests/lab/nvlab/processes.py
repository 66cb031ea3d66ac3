# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Processes that outlive the command that started them, and are ended by it and by nobody's guess."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

KILL_AFTER = 5.0  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True)
class ProcessId:
    """A process beyond doubt: its number, and when it started (clock ticks since boot), since numbers are reused."""

    pid: int
    started: int

    def alive(self) -> bool:
        """Return whether this very process still runs; a zombie does not."""
        stat = _stat(self.pid)
        return stat is not None and stat == (stat[0], self.started) and stat[0] != "Z"


def _stat(pid: int) -> tuple[str, int] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # the command in parentheses may contain anything; state is field 3, start time field 22
    fields = text[text.rindex(")") + 2:].split()
    return fields[0], int(fields[19])


def launch(argv: Sequence[str], log: Path, directory: Path | None = None) -> ProcessId:
    """Start a process in a session of its own with its output in ``log``."""
    with log.open("ab") as out:
        process = subprocess.Popen(list(argv), stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=directory,
                                   start_new_session=True)
    stat = _stat(process.pid)
    return ProcessId(process.pid, stat[1] if stat else 0)


def end(processes: Sequence[ProcessId]) -> None:
    """End the processes that still run: SIGTERM, then SIGKILL."""
    for number, patience in ((signal.SIGTERM, KILL_AFTER), (signal.SIGKILL, KILL_AFTER)):
        for process in processes:
            if process.alive():
                os.kill(process.pid, number)
        deadline = time.monotonic() + patience
        while any(process.alive() for process in processes) and time.monotonic() < deadline:
            _reap()
            time.sleep(0.05)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
