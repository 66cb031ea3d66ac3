# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes on in a playbook, as it happens, and what went wrong in it, said once more at its end.

A scenario ends with pages about its clean-up, so that a reader of the last lines sees that it failed and not why. And
a command that one of its tasks runs is shown by Ansible when it has ended: one that takes long writes into a log, too.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
FRAME = re.compile(r"^\s*[│|] ?")  # molecule draws one around what ansible-playbook prints
# A loop's item is "failed", a task is "fatal"
FAILURE = re.compile(r"^(?:fatal|failed): \[")
SHOWN = 3  # failures: the last ones, for what is expected to fail comes before
LINES = 14  # of each
TICK = 1.0  # seconds between two looks at a log
SHOWN_LOG = "NVGRACE_SHOWN_LOG"  # tells the command that its log is on the terminal


def plain(line: str) -> str:
    """The line as ansible-playbook printed it."""
    return FRAME.sub("", COLOURS.sub("", line)).rstrip()


class Digest:
    """The last failures among lines that come one by one; those that a playbook ignores do not count."""

    def __init__(self) -> None:
        self.failures: list[list[str]] = []
        self._task = ""
        self._open = False

    def add(self, line: str) -> None:
        text = plain(line)
        if text.startswith("TASK ["):
            self._task = text
        if FAILURE.match(text):
            self.failures = [*self.failures[1 - SHOWN:], [*filter(None, [self._task]), text]]
            self._open = True
        elif text == "...ignoring" and self.failures:
            self.failures.pop()
            self._open = False
        elif self._open and text.startswith(" "):
            self.failures[-1].append(text)
        elif self._open:
            self._open = False

    def lines(self) -> list[str]:
        found = []
        for failure in self.failures:
            left = len(failure) - LINES
            found += failure if left <= 0 else [*failure[:LINES], f"    (and {left} lines more)"]
        return found


def show(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.flush()


def _follow(log: Path, position: int, ended: threading.Event) -> None:
    """What is added to the log after ``position``, or to a new one in its place, up to what is there at the end."""
    last = False
    while not last:
        last = ended.wait(TICK)
        if not log.exists():
            continue
        with log.open("rb") as stream:
            if log.stat().st_size < position:
                position = 0
            stream.seek(position)
            show(stream.read())
            position = stream.tell()


@contextlib.contextmanager
def shown(log: Path | None) -> Iterator[None]:
    """Shows what is added to a log inside of this context, within a second; without a log nothing."""
    if log is None:
        yield
        return
    ended = threading.Event()
    position = log.stat().st_size if log.exists() else 0
    thread = threading.Thread(target=_follow, args=(log, position, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def run(argv: list[str], root: Path, log: Path | None = None) -> tuple[int, list[str]]:
    """A command with its output, and what it adds to ``log``, on the terminal as it comes; returns its status and what
    failed in it."""
    digest = Digest()
    environment = {**os.environ, "COLUMNS": str(shutil.get_terminal_size().columns)}  # molecule asks its own output
    if log is not None:
        environment[SHOWN_LOG] = str(log)
    with shown(log), subprocess.Popen(argv, cwd=root, env=environment, stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                show(line)
                digest.add(line.decode(errors="replace"))
        except BaseException:  # the end of this run ends the command, as it does with subprocess.run
            process.kill()
            raise
    return process.returncode, digest.lines()
