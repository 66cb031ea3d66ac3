# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Processes that outlive the command that started them, and are ended by it and by nobody's guess."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError

KILL_AFTER = 5.0  # seconds between SIGTERM and SIGKILL
# In the environment of everything that a build runs, with the directory that it builds: the processes of a killed build
# go on writing there, and this tells them from all others.
BUILD_MARK = "NVGRACE_LAB_BUILD"


@dataclass(frozen=True)
class ProcessId:
    """A process beyond doubt: its number, and when it started (clock ticks since boot), since numbers are reused."""

    pid: int
    started: int

    def alive(self) -> bool:
        """Return whether this very process still runs; a zombie does not."""
        stat = _stat(self.pid)
        return stat is not None and stat == (stat[0], self.started) and stat[0] != "Z"

    def wait(self, seconds: float) -> None:
        """Wait until the process has ended by itself. Raises LabError when it has not after so many seconds."""
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > deadline:
                raise LabError(f"Process {self.pid} has not ended within {seconds:.0f} s.")
            time.sleep(0.2)


def _stat(pid: int) -> tuple[str, int] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # the command in parentheses may contain anything; state is field 3, start time field 22
    fields = text[text.rindex(")") + 2:].split()
    return fields[0], int(fields[19])


def launch(argv: Sequence[str], log: Path, directory: Path | None = None,
           environment: Mapping[str, str] | None = None) -> ProcessId:
    """Start a process in a session of its own with its output in ``log``."""
    with log.open("ab") as out:
        process = subprocess.Popen(list(argv), stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=directory,
                                   env=environment, start_new_session=True)
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


def of_build(directory: Path) -> list[ProcessId]:
    """Return the processes that a build of ``directory`` started, however far removed, this one excepted."""
    mark = f"{BUILD_MARK}={directory}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        stat = _stat(pid)
        if stat is not None and pid != os.getpid() and mark in _environment(entry).split(b"\0"):
            found.append(ProcessId(pid, stat[1]))
    return found


def end_build(directory: Path) -> None:
    """Kill what a build of ``directory`` started, until nothing of it is left: a process may be starting another."""
    while processes := [process for process in of_build(directory) if process.alive()]:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        _reap()
        time.sleep(0.05)


def _environment(entry: Path) -> bytes:
    try:
        return (entry / "environ").read_bytes()
    except OSError:
        return b""


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
