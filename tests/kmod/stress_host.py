# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Stresses the device on the emulated host and writes one JSON line per part to standard output.

usage: stress_host.py SECONDS CYCLES

SECONDS is the time of the mixed operations, CYCLES the number of binds; the other parts follow from them. A first line
{"started": PART, ...} says which part has begun, the second has its figures. With GPU_API=cdev the device is opened
through iommufd. All else goes to standard error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Callable, Union

import stress_kernel as kernel
import stress_parts as parts
from stress_board import KILLED, OK
from stress_ops import TAKEN, TOUCHING, WrongDataError, check_works

# Objects by which a cache may grow in each of the two halves of a part: what else runs on the host. A leak shows only
# where a half has as many operations.
NOISE = 50
SHOWN = 5
# The GPU is told to be ready before a part ends; the time it then needs at most.
RECOVERY = 120.0


@dataclass(frozen=True)
class Part:
    """One part: what runs, how often or how long, and which outcomes are no fault; SIGBUS only of a touch."""

    name: str
    run: Callable[[float], Counter]
    amount: Union[int, float]
    allowed: tuple = ()
    unready: bool = False

    def halves(self) -> tuple:
        """Return the amount in two parts: seconds, or a number of times."""
        first = self.amount / 2 if isinstance(self.amount, float) else self.amount // 2
        return first, self.amount - first


@dataclass
class Row:
    """What came of a part."""

    part: str
    count: int = 0
    allowed: dict = field(default_factory=dict)
    unexpected: list = field(default_factory=list)
    seconds: float = 0.0
    detail: str = ""


def plan(seconds: float, cycles: int) -> list:
    """Return the parts in order."""
    few, some = max(2, cycles // 20), max(5, cycles // 10)
    return [
        Part("mixed operations, 8 users", parts.mixed, seconds),
        Part("memory decoding off and on meanwhile", parts.decoding, seconds / 5, ("EIO", "SIGBUS")),
        Part("resets from sysfs meanwhile", parts.host_resets, seconds / 5, ("EAGAIN",)),
        Part("8 openers of one device", parts.contended, seconds / 5, (TAKEN,)),
        Part("SIGKILL within each operation", parts.killed, some, (KILLED,)),
        Part("bind cycles", parts.cycles, cycles),
        Part("unbind while open", parts.unbind_open, few),
        Part("rmmod", parts.removal, few),
        Part("readiness changes", parts.readiness, max(75.0, seconds / 2), ("ETIME", "EIO", "EINTR", "SIGBUS", KILLED),
             unready=True),
    ]


def judge(part: Part, tally: Counter, row: Row) -> None:
    """Sort the outcomes of a part into its row."""
    operations: Counter = Counter()
    for (operation, outcome), count in sorted(tally.items()):
        operations[operation] += count
        if outcome == OK:
            continue
        if outcome in part.allowed and (outcome != "SIGBUS" or operation in TOUCHING):
            row.allowed[outcome] = row.allowed.get(outcome, 0) + count
        else:
            row.unexpected.append(f"{operation}: {outcome} {count} times")
    row.count = sum(operations.values())
    row.detail = ", ".join(f"{operation} {count}" for operation, count in operations.items())


def check_recovered(limit: float) -> list:
    """Return what is wrong with the device, which may need that many seconds to become ready."""
    until = time.monotonic() + limit
    while True:
        try:
            check_works()
            return []
        except (OSError, WrongDataError) as error:
            if time.monotonic() > until:
                return [f"the GPU does not work afterwards: {error}"]


def measured(part: Part) -> Row:
    """Run a part in two halves, and look at the kernel's memory before, between and after them."""
    row = Row(part.name)
    log = kernel.Log()
    begin = time.monotonic()
    objects = [kernel.slab_objects()]
    tallies = []
    for amount in part.halves():
        tallies.append(part.run(amount))
        objects.append(kernel.slab_objects())
    row.seconds = round(time.monotonic() - begin, 1)
    judge(part, tallies[0] + tallies[1], row)
    if min(sum(tally.values()) for tally in tallies) >= NOISE:
        row.unexpected += kernel.grown(*objects, NOISE)
    else:
        row.detail += "; too few for a leak to be told from noise"
    row.unexpected += check_recovered(RECOVERY if part.unready else 0.0)
    row.unexpected += kernel.remains()
    allowed = {**kernel.ALLOWED, **(kernel.ALLOWED_UNREADY if part.unready else {})}
    row.unexpected += [f"kernel log: {line}" for line in kernel.unexpected(log.complaints(), allowed)[:SHOWN]]
    return row


def main(seconds: float, cycles: int) -> int:
    """Run all parts; 0 whatever they say, because the lines tell it."""
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.signal(signal.SIGBUS, signal.SIG_DFL)
    for part in plan(seconds, cycles):
        started = {"started": part.name, "unready": part.unready, "seconds": part.amount}
        print(json.dumps(started), file=results, flush=True)
        print(json.dumps(asdict(measured(part))), file=results, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2])))
