# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills a module's process at one point of its work, from within the interpreter and without a hook in the module.

NVGRACE_KILL_AT: number of the point, counted from 0; "count" kills nothing. NVGRACE_KILL_LOG: a file for the number of
points that were reached. NVGRACE_KILL_ON: what is a point, "step" (before each step of a plan) or "change" (before each
change of a file, of sysfs, or by a program).
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import sys
from types import FrameType

POINTS = {
    "step": ("/_core/plan.py", ("apply_step",)),
    "change": ("/_core/host.py", ("write_atomic", "remove", "write_sysfs", "run")),
}


class Killer:
    """Counts the points, those in child processes of the module too: the counter is memory that all of them share."""

    def __init__(self, at: str, log: str, on: str) -> None:
        self.victim = os.getpid()
        self.at = None if at == "count" else int(at)
        self.log = log
        self.file, self.functions = POINTS[on]
        self.counter = mmap.mmap(-1, mmap.PAGESIZE)

    def watch(self, frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        if event != "call" or code.co_name not in self.functions or not code.co_filename.endswith(self.file):
            return
        (seen,) = struct.unpack_from("Q", self.counter)
        if seen == self.at:
            os.kill(self.victim, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        struct.pack_into("Q", self.counter, 0, seen + 1)
        with open(self.log, "w", encoding="ascii") as stream:
            stream.write(str(seen + 1))


if "NVGRACE_KILL_AT" in os.environ:
    sys.setprofile(Killer(os.environ["NVGRACE_KILL_AT"], os.environ["NVGRACE_KILL_LOG"],
                          os.environ["NVGRACE_KILL_ON"]).watch)
