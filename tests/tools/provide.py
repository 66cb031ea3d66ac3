# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stages of tests/run find in the lab's cache, made beside the stages before them.

Images and Debian roots take minutes, much of them downloads, and a stage without virtual machines keeps one processor
busy: a run with an empty cache is as much shorter. Only the waiting is done here: each command takes its lock, makes
what is missing and leaves nothing half-made, and a stage whose things could not be made runs the same command itself.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / ".build" / "provide"
TICK = 15.0  # seconds between two lines of one who waits
PATIENCE = 30.0  # seconds that an interrupted command has to clean up


@dataclass
class Thing:
    """One command, and the stages that want what it makes."""

    name: str
    argv: list[str]
    stages: tuple[str, ...]
    done: threading.Event = field(default_factory=threading.Event)
    status: int | None = None

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name.replace(' ', '-')}.log"


def things(stages: list[str]) -> list[Thing]:
    """What the stages want, in their order."""
    everything = [
        Thing("Debian root with compilers", ["sh", "files/kmod/tests/buildroot.sh", "trixie"],
              ("variants", "proof", "style")),
        Thing("aliases of Debian's kernels", ["sh", "tests/tools/kernel-aliases.sh"], ("variants",)),
        # Here, and not beside what installs packages for the image
        Thing("browser", [sys.executable, "tests/report/chromium.py"], ("report",)),
        *(Thing(f"libvirt of {suite}", ["sh", "tests/domains/libvirt-root.sh", suite], ("domains",))
          for suite in ("trixie", "bookworm", "forky")),
        Thing("image of the emulated host", ["tests/lab/lab", "build"],
              ("molecule", "faults", "refusals", "behaviour", "guest", "fleet")),
    ]
    if platform.machine() != "x86_64":  # these stages skip themselves there
        everything = [thing for thing in everything if "variants" not in thing.stages]
    return [thing for thing in everything if set(thing.stages) & set(stages)]


class Provider:
    """Makes things one after the other in the background. A context manager: what still runs at its end is stopped."""

    def __init__(self, wanted: list[Thing]) -> None:
        self._things = wanted
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._stopped = False
        self._thread = threading.Thread(target=self._make_all, daemon=True)

    def __enter__(self) -> Provider:
        if self._things:
            LOGS.mkdir(parents=True, exist_ok=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._stopped = True
            process = self._process
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        if self._thread.is_alive():
            self._thread.join()

    def _make_all(self) -> None:
        for thing in self._things:
            with thing.log.open("wb") as log:
                with self._lock:
                    if self._stopped:
                        return
                    # The stages in front come first; a session of its own, so that all of it can be stopped, also
                    # where a run was begun with "&" in a script, which has its children ignore SIGINT
                    self._process = subprocess.Popen(
                        ["env", "--default-signal=INT", "nice", *thing.argv], cwd=ROOT, stdin=subprocess.DEVNULL,
                        stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
                thing.status = self._process.wait()
            thing.done.set()

    def wait(self, stage: str) -> None:
        """Return when all is there that ``stage`` wants, or has failed, in which case the log's end is shown."""
        for thing in self._things:
            if stage not in thing.stages:
                continue
            begin = time.monotonic()
            while self._thread.is_alive() and not thing.done.wait(TICK):
                print(f"--- waiting for the {thing.name}: {time.monotonic() - begin:.0f} s  {_end_of(thing.log, 1)}",
                      flush=True)
            if thing.status:
                print(f"--- the {thing.name} could not be made in advance, status {thing.status}:\n"
                      f"{_end_of(thing.log, 20)}", flush=True)


def _end_of(log: Path, lines: int) -> str:
    """The last lines of a log that may not be there yet."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").rstrip().splitlines()[-lines:])
