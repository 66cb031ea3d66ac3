# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills a module's process at one point of its work, from within the interpreter and without a hook in the module.

NVGRACE_KILL_AT: number of the point, counted from 0; "count" kills nothing. NVGRACE_KILL_LOG: a file for the number of
points that were reached. NVGRACE_KILL_ON: what is a point, "step" (before each step of a plan) or "change" (before each
change of a file, of sysfs, or by a program).
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

POINTS = {
    "step": ("/_core/plan.py", ("apply_step",)),
    "change": ("/_core/host.py", ("write_atomic", "remove", "write_sysfs", "run")),
}


class Killer:
    """Counts the points; a child process of the module kills the module, too."""

    def __init__(self, at: str, log: str, on: str) -> None:
        self.victim = os.getpid()
        self.at = None if at == "count" else int(at)
        self.log = log
        self.file, self.functions = POINTS[on]
        self.seen = 0

    def watch(self, frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        if event != "call" or code.co_name not in self.functions or not code.co_filename.endswith(self.file):
            return
        if self.seen == self.at:
            os.kill(self.victim, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen += 1
        if os.getpid() == self.victim:
            with open(self.log, "w", encoding="ascii") as stream:
                stream.write(str(self.seen))


if "NVGRACE_KILL_AT" in os.environ:
    sys.setprofile(Killer(os.environ["NVGRACE_KILL_AT"], os.environ["NVGRACE_KILL_LOG"],
                          os.environ["NVGRACE_KILL_ON"]).watch)
