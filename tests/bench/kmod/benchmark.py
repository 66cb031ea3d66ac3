# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The controller's side of the benchmark: both drivers on two GPUs, both ways round, and the goals."""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from suite import driver as drivers
from suite.driver import MAINLINE, OURS
from suite.host import TESTS, Facts, Host, HostError

DIRECTORY = "/root/bench"
HERE = Path(__file__).resolve().parent
Pairs = list[list[float]]
OPEN = "open and close"
# Ours over the kernel's own, at most; one is ours over ours.
GOALS = {"usemem": 1.05, "resmem": 0.2, "hole read 64 MiB": 0.05, "hole read over memory read": 1.05,
         "first touch": 1.05,
         # What a program's first read does, whose pages come meanwhile: shown, without a goal.
         "usemem read 64 MiB, fresh": None}
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Figure:
    """A figure with its interval of confidence. ``goal`` is the most that it may be, if any; differences: seconds."""

    name: str
    unit: str
    value: float
    low: float
    high: float
    goal: float | None
    ours: float
    theirs: float

    @property
    def met(self) -> bool:
        """Return whether the goal is met: a difference, when none can be seen or it is to our favour."""
        return self.goal is None or (self.low if self.unit == "s" else self.value) <= self.goal


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the interval for the median by order statistics, which needs no assumption on the distribution."""
    ordered, count = sorted(values), len(values)
    below, outside = 0.0, 0
    while outside < count // 2:
        below += math.comb(count, outside) / 2 ** count
        if below > (1 - CONFIDENCE) / 2:
            break
        outside += 1
    first = max(outside - 1, 0)
    return ordered[first], ordered[count - 1 - first]


def ratio(name: str, halves: Sequence[Pairs]) -> Figure:
    """Return ours over theirs: of each two pairs, one from each half, the geometric mean."""
    values = [math.sqrt(first[0] / first[1] * second[0] / second[1]) for first, second in zip(*halves)]
    goal = next(limit for start, limit in reversed(GOALS.items()) if name.startswith(start))
    return Figure(name, "ratio", statistics.median(values), *interval(values), goal, *medians(halves))


def difference(name: str, halves: Sequence[Pairs]) -> Figure:
    """Return ours minus theirs in seconds, averaged as ratio() does."""
    values = [((first[0] - first[1]) + (second[0] - second[1])) / 2 for first, second in zip(*halves)]
    return Figure(name, "s", statistics.median(values), *interval(values), 0.0, *medians(halves))


def medians(halves: Sequence[Pairs]) -> tuple[float, float]:
    """Return the median seconds of ours and of theirs."""
    pairs = [pair for half in halves for pair in half]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def measure(host: Host, facts: Facts, pairs: int) -> list[dict]:
    """Return what measure.py prints, once for each assignment of the drivers to the GPUs."""
    halves = []
    addresses = [gpu.address for gpu in facts.gpus[:2]]
    for ours, theirs in (addresses, addresses[::-1]):
        print(f"== this driver on {ours}, the kernel's own on {theirs}", file=sys.stderr, flush=True)
        for address in addresses:
            drivers.unbind(host, address)
        drivers.bind(host, OURS, ours)
        drivers.bind(host, MAINLINE, theirs)
        output = host.do(f"cd {DIRECTORY} && python3 measure.py {ours} {theirs} {pairs}", seconds=1800)
        halves.append(json.loads(output.splitlines()[-1]))
    return halves


def prepare(host: Host) -> Facts:
    """Build and load what is needed. Raises HostError for a host that is none for this."""
    facts = host.facts()
    if len(facts.gpus) < 2 or not all(gpu.mig_bug for gpu in facts.gpus) or facts.faults:
        raise HostError(f"{host.name} is no host with two GPUs of the GH200 kind and without faults: "
                        f"start one with tests/lab/lab start {host.name} --gpus 2.")
    host.put([HERE / "loops.c", HERE / "measure.py", TESTS / "kmod" / "vfio_client.py"], DIRECTORY)
    host.do(f"cd {DIRECTORY} && gcc -O2 -Wall -Werror -nostdlib -shared -fPIC -o loops.so loops.c")
    for number, gpu in enumerate(facts.gpus):
        host.make_ready(gpu, number)
        drivers.unbind(host, gpu.address)
    for driver in (OURS, MAINLINE):
        print(f"== building {driver.title}", file=sys.stderr, flush=True)
        drivers.build(host, driver)
        drivers.load(host, driver)
    return facts


def figures(halves: Sequence[dict]) -> list[Figure]:
    """Return all figures."""
    return [(difference if name == OPEN else ratio)(name, [half["pairs"][name] for half in halves])
            for name in halves[0]["pairs"]]


def table(found: Sequence[Figure], halves: Sequence[dict]) -> str:
    """Return the figures for a person."""
    lines = [f"{'':36} {'this driver':>12} {'kernel own':>12} {'ratio':>9} {'95 % interval':>19} {'goal':>6}"]
    for figure in found:
        scale, digits = (1000, 2) if figure.unit == "s" else (1, 3)
        span = f"{figure.low * scale:.{digits}f} to {figure.high * scale:.{digits}f}"
        value = f"{figure.value * scale:.{digits}f}" + (" ms" if figure.unit == "s" else "")
        times = f"{figure.ours * 1e6:9.1f} us {figure.theirs * 1e6:9.1f} us"
        goal = "   none" if figure.goal is None else f"{figure.goal:6.2f} {'met' if figure.met else 'NOT MET'}"
        lines.append(f"{figure.name:36} {times} {value:>9} {span:>19} {goal}")
    faults = ", ".join(f"{who} {max(half['faults'][who] for half in halves)}" for who in ("ours", "theirs"))
    return "\n".join([*lines, f"faults of the first touch of 1 GiB: {faults}"])


def main(argv: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="tests/bench/kmod/bench", description="Speed of the kernel module over that "
                                     "of the kernel's own driver, on an emulated host with two GPUs that runs already.")
    parser.add_argument("name", nargs="?", default="bench", help="the host's name, %(default)s by default")
    parser.add_argument("--json", action="store_true", help="print JSON with every sample")
    parser.add_argument("--pairs", type=int, default=30,
                        help="pairs of open and close in each half, %(default)s by default; there are five times as "
                        "many of what is shorter")
    options = parser.parse_args(argv)
    host = Host(options.name)
    try:
        halves = measure(host, prepare(host), options.pairs)
    except HostError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    found = figures(halves)
    if options.json:
        print(json.dumps({"figures": [{**asdict(figure), "met": figure.met} for figure in found], "halves": halves}))
    else:
        print(table(found, halves))
        judged = [figure for figure in found if figure.goal is not None]
        print(f"kmod speed: {sum(figure.met for figure in judged)} of {len(judged)} goals met")
    return 0 if all(figure.met for figure in found) else 1
