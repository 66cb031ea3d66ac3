# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The parts of tests/kmod/debug, and what the debug kernel has to say after each."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from . import debugkernel
from . import driver as drivers
from .crossbuild import BuildError
from .driver import MAINLINE, MODULES, OURS, Driver
from .host import Host, HostError
from .plan import Phase, phases
from .results import BAD, OK, SKIP, Result
from .session import DIRECTORY, Session, environment, install
from .stress import CDEV, GROUP, Stress, prepare

KUNIT_DIRECTORY = "/root/kunit"
# Two scans of kmemleak take half a minute, and all injections some minutes.
PATIENCE = 3600
SHOWN = 400  # characters of a report on the terminal


class CdevSession(Session):
    """Tests that open the device by its file."""

    RUNNER = "debug_runner.py"


@dataclass
class Part:
    """What came of one part."""

    name: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    # Reports that are known to be no fault of the driver: how often, by their title and the reason.
    allowed: dict[tuple[str, str], int] = field(default_factory=dict)

    def fail(self, problem: str) -> None:
        """Note something that is wrong."""
        self.failed += 1
        self.problems.append(problem)

    def line(self) -> str:
        """Return the part for a person."""
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.name}: {self.passed} passed, {self.failed} failed{skipped} ({self.seconds:.0f} s)"


@dataclass(frozen=True)
class Size:
    """How much is done."""

    stress_seconds: float
    cycles: int
    phases: int | None  # how many phases of the behaviour suite, None for all


FULL = Size(300.0, 200, None)
QUICK = Size(30.0, 20, 1)


class DebugRun:
    """All parts on one host with the debug kernel."""

    def __init__(self, host: Host, size: Size) -> None:
        self.host = host
        self.size = size
        self.parts: list[Part] = []
        self._sequence = 0

    def ask(self, driver: Driver, api: str, *words: str) -> list[dict[str, Any]]:
        """Run debug_host.py on the host and return its lines. Raises HostError."""
        variables = environment(self.host.facts(), driver, Phase("debug", ()))
        command = f"cd {DIRECTORY} && env {variables} GPU_API={api} python3 debug_host.py {' '.join(words)}"
        return [json.loads(line) for line in self.host.do(command, seconds=PATIENCE).splitlines()]

    def baseline(self) -> None:
        """Look once before the module is loaded: what is there now is not its doing."""
        install(self.host)
        drivers.build(self.host, OURS)
        self._watched("the kernel before the module is loaded", lambda part: None)

    def behaviour(self, api: str) -> None:
        """Run the behaviour suite."""
        def work(part: Part) -> None:
            session = (CdevSession if api == CDEV else Session)(self.host, OURS, f"debug-{api}")
            count(part, session.run(phases(session.facts, OURS)[:self.size.phases]))

        self._watched(f"behaviour, {api}", work)

    def iommufd(self) -> None:
        """Run the tests of what iommufd does in another way."""
        def work(part: Part) -> None:
            count(part, CdevSession(self.host, OURS, "debug-iommufd").run([Phase("iommufd", ("debug_iommufd",))]))

        self._watched("iommufd", work, leaks=False)

    def stress(self, api: str) -> None:
        """Run the stress."""
        def work(part: Part) -> None:
            prepare(self.host, OURS)
            for row in Stress(self.host, OURS, api, self.size.stress_seconds, self.size.cycles).run():
                part.passed += not row.bad
                for problem in row.unexpected[:1]:
                    part.fail(f"{row.part}: {problem}")
                part.notes.append(f"{row.part}: {row.count} operations, {row.seconds:.0f} s")

        self._watched(f"stress, {api}", work)

    def kunit(self, modules: Iterable[Path]) -> None:
        """Load the KUnit suites and count their results."""
        def work(part: Part) -> None:
            names = [module.name for module in modules]
            self.host.put(list(modules), KUNIT_DIRECTORY)
            for name in names:
                self.host.do(f"insmod {KUNIT_DIRECTORY}/{name}")
            for suite in self.ask(OURS, GROUP, "kunit"):
                part.passed += len(suite["passed"])
                part.skipped += len(suite["skipped"])
                for name in suite["failed"]:
                    part.fail(f"{suite['suite']}.{name}")
            for name in reversed(names):
                self.host.do(f"rmmod {name.removesuffix('.ko')}")

        self._watched("KUnit", work)

    def lock_order(self, driver: Driver) -> None:
        """Show lockdep in which order a driver takes its locks."""
        def work(part: Part) -> None:
            prepare(self.host, driver)
            self.ask(driver, GROUP, "lock-order")

        self._watched(f"lock order, {driver.title}", work, known_bad=driver is MAINLINE, leaks=False)

    def faults(self, api: str) -> None:
        """Have each thing that can fail fail once."""
        def work(part: Part) -> None:
            prepare(self.host, OURS)
            for call in self.ask(OURS, api, "faults"):
                part.passed += not call["wrong"]
                if call["wrong"]:
                    part.fail(f"{call['call']}: {call['wrong']}")
                outcomes = ", ".join(f"{name} {number}" for name, number in call["outcomes"].items())
                part.notes.append(f"{call['call']}: {sum(call['outcomes'].values())} injections, {outcomes or 'none'}")

        self._watched(f"fault injection, {api}", work, faults=True)

    def _watched(self, name: str, work: Callable[[Part], None], faults: bool = False, known_bad: bool = False,
                 leaks: bool = True) -> None:
        """Do a part, and ask the kernel afterwards. Of a driver that is ``known_bad`` a report is what is wanted.

        Leaks take a minute to find: those of a short part may wait for the next one.
        """
        print(f"== {name}", flush=True)
        part, begin = Part(name), time.monotonic()
        try:
            self._sequence = self.ask(OURS, GROUP, "log")[0]["sequence"]
            work(part)
            words = ("check", str(self._sequence), *(["leaks"] if leaks else []))
            self._judge(part, self.ask(OURS, GROUP, *words)[0], faults, known_bad)
        except (HostError, BuildError) as error:
            part.fail(str(error))
        part.seconds = time.monotonic() - begin
        self.parts.append(part)
        for line in (part.line(), *part.notes, *(f"FAILED: {problem}" for problem in part.problems)):
            print(f"   {line}", flush=True)

    def _judge(self, part: Part, answer: dict[str, Any], faults: bool, known_bad: bool) -> None:
        """Count what the kernel reports during a part; that it has nothing to report counts as one test."""
        failed = part.failed
        if answer["lost"]:
            part.fail("messages of the kernel were lost before they could be looked at")
        for report in answer["reports"]:
            if known_bad:
                part.notes.append(f"reported, as it should be: {report['title']}")
            elif faults and report["reason"]:
                key = report["title"].split(" at ")[-1], report["reason"]
                part.allowed[key] = part.allowed.get(key, 0) + 1
            else:
                part.fail(f"{'with the module in it: ' if report['ours'] else ''}{report['text'][:SHOWN]}")
        for leak in answer["leaks"] or ():
            if leak["reason"]:
                part.allowed[leak["text"].splitlines()[0], leak["reason"]] = 1
            else:
                part.fail(f"leak: {leak['text'][:SHOWN]}")
        if known_bad and answer["lockdep"]:
            part.fail("lockdep has nothing against this driver: the comparison shows nothing")
        elif not (known_bad or faults or answer["lockdep"]):
            part.fail("lockdep was off at the end")
        part.passed += part.failed == failed
        leaks = "not looked for" if answer["leaks"] is None else len(answer["leaks"])
        part.notes.append(f"reports {len(answer['reports'])}, leaks {leaks}, "
                          f"lockdep {'on' if answer['lockdep'] else 'off'} at the end")


def count(part: Part, results: Iterable[Result]) -> None:
    """Count results of the behaviour suite."""
    for result in results:
        part.passed += result.outcome == OK
        part.skipped += result.outcome == SKIP
        if result.outcome in BAD:
            part.fail(f"{result.test}: {result.message}")
        elif result.outcome == SKIP:
            part.notes.append(f"skipped: {result.test}: {result.message}")


def put_mainline(host: Host, directory: Path) -> None:
    """Build the kernel's own driver for the debug kernel and put it there. Raises BuildError."""
    host.put([debugkernel.build_driver(MAINLINE, directory)], f"{MODULES}/{MAINLINE.module}")


def leave(host: Host, driver: Driver) -> None:
    """Unbind the GPUs and remove a driver."""
    for gpu in host.facts().gpus:
        drivers.unbind(host, gpu.address)
    host.do(f"[ ! -e /sys/module/{driver.module} ] || rmmod {driver.module}")
