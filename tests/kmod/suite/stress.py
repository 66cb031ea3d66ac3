# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The command tests/kmod/stress: many users of one device at once, and lives that end early."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import Any

from . import driver as drivers
from .driver import OURS, Driver
from .host import Host, HostError
from .plan import Phase
from .session import DIRECTORY, Lines, environment, install

GROUP, CDEV = "group", "cdev"
# What somebody outside does to the GPU while its users go on; and for how many seconds that stays so.
CHANGES = (("not-ready", 35), ("ready-after 2", 6), ("ready", 4), ("not-ready", 3), ("ready-after 5", 8), ("ready", 3))
# No part is silent for longer, but for what it was asked to last.
SILENCE = 900
CYCLE_SECONDS = 10.0  # a bind with an open in it, on the debug kernel and a busy machine


@dataclass(frozen=True)
class Row:
    """One part of the stress: how many operations, which errors were allowed, and what must not have been."""

    part: str
    count: int = 0
    allowed: dict[str, int] = field(default_factory=dict)
    unexpected: tuple[str, ...] = ()
    seconds: float = 0.0
    detail: str = ""

    @property
    def bad(self) -> bool:
        """Return whether something is wrong."""
        return bool(self.unexpected)


class Readiness:
    """Changes a GPU's readiness in the background until told to stop; the GPU is ready then."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        # The long time without a ready GPU comes first: the short form has to have it, too.
        changes = list(CHANGES)
        while True:
            for request, seconds in changes:
                self._host.gpu(request)
                if self._stop.wait(seconds):
                    return
            random.shuffle(changes)

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join()
        self._host.gpu("ready")


def _row(data: dict[str, Any]) -> Row:
    return Row(**{**data, "unexpected": tuple(data["unexpected"])})


def _show(row: Row) -> None:
    print(f"{'FAIL' if row.bad else 'ok':<5} {row.part} ({row.count} operations, {row.seconds:.0f} s)", flush=True)
    for line in (row.detail, *row.unexpected):
        print(f"      {line}", flush=True)


class Stress:
    """One run on a host that has the driver loaded and the GPU bound."""

    def __init__(self, host: Host, driver: Driver, api: str, seconds: float, cycles: int) -> None:
        self._host = host
        self._silence = SILENCE + seconds + cycles * CYCLE_SECONDS
        variables = environment(host.facts(), driver, Phase("stress", ()))
        self._command = (f"cd {DIRECTORY} && env {variables} GPU_API={api} "
                         f"python3 stress_host.py {seconds} {cycles}")
        self._changing: Readiness | None = None
        self._changes_end: threading.Timer | None = None

    def run(self) -> list[Row]:
        """Return the rows; what did not end is one of them."""
        process = subprocess.Popen(self._host.command(self._command), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        rows: list[Row] = []
        running = "the start"
        lines = Lines(process.stdout)
        try:
            while (line := lines.next(self._silence)) is not None:
                data = json.loads(line)
                running = data.get("started", "")
                if running:
                    self._begin(data)
                    continue
                self._end()
                rows.append(_row(data))
                _show(rows[-1])
        except Exception as error:
            rows.append(Row(running, unexpected=(f"no answer: {error!r}",)))
            running = ""
        finally:
            self._end()
            process.kill()
            process.wait()
            # What was given up would go on there, and have the GPU while the next test wants it.
            self._host.do("pkill -KILL -f '[s]tress_host.py' || true")
        if running or not rows:
            rows.append(Row(running, unexpected=("it ended the whole run",)))
        return rows

    def _begin(self, data: dict[str, Any]) -> None:
        print(f"== {data['started']}", flush=True)
        if data["unready"]:
            self._changing = Readiness(self._host)
            self._changes_end = threading.Timer(data["seconds"], self._end)
            self._changes_end.start()

    def _end(self) -> None:
        changing, self._changing = self._changing, None
        if changing:
            changing.stop()


def table(rows: list[Row]) -> str:
    """Return the rows for a person."""
    lines = [f"{'what':<38} {'count':>8}  {'allowed':<34} {'unexpected':<10} {'seconds':>7}"]
    for row in rows:
        allowed = ", ".join(f"{name} {count}" for name, count in row.allowed.items()) or "-"
        lines.append(f"{row.part:<38} {row.count:>8}  {allowed:<34} {len(row.unexpected):<10} {row.seconds:>7.1f}")
    return "\n".join(lines)


def summary(rows: list[Row]) -> str:
    """Return the last line of a run."""
    failed = sum(row.bad for row in rows)
    return f"kmod stress: {len(rows) - failed} passed, {failed} failed"


def prepare(host: Host, driver: Driver) -> None:
    """Load the driver and bind the GPU, which is ready."""
    facts = host.facts()
    install(host)
    for number, gpu in enumerate(facts.gpus):
        host.make_ready(gpu, number)
        drivers.unbind(host, gpu.address)
    drivers.load(host, driver, "layout=mainline" if driver.ours else "")
    drivers.bind(host, driver, facts.gpus[0].address)


def main(argv: list[str]) -> int:
    """Stress the module on a host that runs already."""
    parser = argparse.ArgumentParser(prog="tests/kmod/stress", description="Many users of one device at once, and "
                                     "lives that end early, on an emulated host that runs already.")
    parser.add_argument("name", help="the host's name")
    parser.add_argument("--minutes", type=float, default=5.0, help="of mixed operations, %(default)s by default")
    parser.add_argument("--cycles", type=int, help="binds; 200 by default, 20 in less than a minute")
    parser.add_argument("--api", choices=(GROUP, CDEV), default=GROUP, help="how the device is opened")
    options = parser.parse_args(argv)
    cycles = options.cycles or (200 if options.minutes >= 1 else 20)
    try:
        host = Host(options.name)
        host.facts()
        drivers.build(host, OURS)
        prepare(host, OURS)
        rows = Stress(host, OURS, options.api, options.minutes * 60, cycles).run()
    except HostError as error:
        print(f"stress: {error}", file=sys.stderr)
        return 2
    print(table(rows))
    print(summary(rows))
    return 1 if any(row.bad for row in rows) else 0
