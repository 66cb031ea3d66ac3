# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Steps that say how long they took, and commands that say that they are still alive."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .errors import LabError

PROGRESS_INTERVAL = 15.0  # seconds between two lines of a long command
TAIL_LINES = 15
# Terminal control sequences, which a serial console is full of, and other control characters but the newline.
CONTROL = re.compile(r"\x1b\[[0-9;?=!]*[A-Za-z]|\x1b\][^\x07\x1b\n]*?(?:\x07|\x1b\\|(?=\n))|[\x00-\x09\x0b-\x1f\x7f]")


def say(text: str) -> None:
    """Print one line for the person who waits; standard output stays free for data."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Announce ``title``, run the block, and say how many seconds it took."""
    say(f"==> {title}")
    begin = time.monotonic()
    try:
        yield
    except BaseException:
        say(f"    {title}: failed after {time.monotonic() - begin:.1f} s")
        raise
    say(f"    {title}: {time.monotonic() - begin:.1f} s")


def last_line(path: Path) -> str:
    """Return the last non-empty line of a log, shortened to fit a terminal; empty when there is no log yet."""
    if not path.exists():
        return ""
    with path.open("rb") as log:
        log.seek(0, os.SEEK_END)
        log.seek(max(0, log.tell() - 4096))
        text = CONTROL.sub("", log.read().decode("utf-8", "replace").replace("\r", "\n"))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:100] if lines else ""


def _report_progress(stop: threading.Event, log: Path) -> None:
    begin = time.monotonic()
    while not stop.wait(PROGRESS_INTERVAL):
        say(f"    ... {time.monotonic() - begin:3.0f} s  {last_line(log)}")


@contextlib.contextmanager
def progress(log: Path) -> Iterator[None]:
    """Show the end of ``log`` every now and then while the block runs."""
    stop = threading.Event()
    watcher = threading.Thread(target=_report_progress, args=(stop, log), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def run_logged(argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
    """Run a long command with its output in ``log``, showing progress.

    Raises LabError with the tail of the log when the command fails. An interrupt kills the command; its children are
    the caller's to end (processes.end_build).
    """
    with log.open("ab") as out, progress(log):
        process = subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
        )
        try:
            status = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
    if status != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
        raise LabError(f"{argv[0]} failed with status {status}; the end of {log}:\n{tail}")
