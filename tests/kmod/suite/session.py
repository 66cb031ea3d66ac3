# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Runs a plan on a host: brings driver and GPU into each phase's state and collects what the tests say."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterable
from typing import IO

from . import driver as drivers
from .driver import Driver
from .host import TESTS, Facts, Host, HostError
from .plan import READY_AFTER, Phase
from .results import ERROR, KERNEL_BUG, Result, place

DIRECTORY = "/root/tests"
SOURCES = "/root/sources"
# No test of the suite takes a third of it; then the host hangs.
SILENCE = 240


def install(host: Host) -> None:
    """Copy the tests to the host, and the sources that some of them look at."""
    host.put(sorted((TESTS / "kmod").glob("*.py")), DIRECTORY)
    host.put(drivers.our_sources(), SOURCES)


def environment(facts: Facts, driver: Driver, phase: Phase) -> str:
    """Return the variables by which hostside.py learns what it is on."""
    gpu = facts.gpus[0]
    values = {"GPU_ADDRESS": gpu.address, "GPU_MEMORY": gpu.memory_size, "GPU_MEMORY_BASE": gpu.memory_base,
              "GPU_MIG_BUG": int(gpu.mig_bug), "GPU_LAYOUT": phase.layout, "GPU_READY_AFTER": READY_AFTER,
              "GPU_SOURCES": SOURCES, "GPU_MODULE": driver.module,
              "GPU_MODULE_FILE": f"{drivers.MODULES}/{driver.module}/{driver.file}"}
    return " ".join(f"{name}={value}" for name, value in values.items())


class Lines:
    """Lines of a process's output, with a limit on how long it may be silent."""

    def __init__(self, stream: IO[str]) -> None:
        self._queue: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._pump, args=(stream,), daemon=True).start()

    def _pump(self, stream: IO[str]) -> None:
        for line in stream:
            self._queue.put(line)
        self._queue.put(None)

    def next(self, seconds: float) -> str | None:
        """Return the next line, None at the end. Raises queue.Empty after that many seconds."""
        return self._queue.get(timeout=seconds)


class Session:
    """One driver on one host."""

    RUNNER = "runner.py"

    def __init__(self, host: Host, driver: Driver, title: str) -> None:
        self.host = host
        self.driver = driver
        self.facts = host.facts()
        self.title = title
        self.results: list[Result] = []

    def run(self, phases: Iterable[Phase]) -> list[Result]:
        """Run phases in order and return all results. Only a host that cannot be used raises HostError."""
        drivers.build(self.host, self.driver)
        install(self.host)
        for phase in phases:
            print(f"== {phase.name}: {' '.join(phase.tests)}", flush=True)
            try:
                self._run_phase(phase)
            except HostError as error:
                self._note(Result(phase.name, (), ERROR, 0.0, str(error)), phase)
        return self.results

    def _prepare(self, phase: Phase) -> None:
        for number, gpu in enumerate(self.facts.gpus):
            self.host.make_ready(gpu, number)
            drivers.unbind(self.host, gpu.address)
        drivers.load(self.host, self.driver, f"layout={phase.layout}" if self.driver.ours else "")
        if phase.bound:
            drivers.bind(self.host, self.driver, self.facts.gpus[0].address)
        for request in phase.gpu:
            self.host.gpu(request)

    def _note(self, result: Result, phase: Phase) -> None:
        result = place(result, self.driver.module, self.title, phase.name)
        self.results.append(result)
        print(result.line(), flush=True)
        for line in result.output.splitlines():
            print(f"           {line}", flush=True)

    def _run_phase(self, phase: Phase) -> None:
        """Run all tests of a phase: anew after a test that ended the run, on a rebooted host if it needs that."""
        after: str | None = None
        while True:
            self._prepare(phase)
            before = len(self.results)
            running, silent = self._run_tests(phase, after)
            if running is not None:
                why = "the host hangs" if silent else "the test ended the whole run"
                self._note(Result(running, (), ERROR, 0.0, why), phase)
            elif len(self.results) == before and after is None:
                self._note(Result(phase.name, (), ERROR, 0.0, "no test ran"), phase)
                return
            hurt = len(self.results) > before and self.results[-1].outcome == KERNEL_BUG
            if not hurt and running is None:
                return
            after = self.results[-1].test
            if hurt or silent:
                # A kernel that has met a BUG holds locks for ever.
                self.host.reset()

    def _run_tests(self, phase: Phase, after: str | None) -> tuple[str | None, bool]:
        """Run the tests after that one; return as _collect() does."""
        skip = f"--after {after} " if after else ""
        command = (f"cd {DIRECTORY} && env {environment(self.facts, self.driver, phase)} "
                   f"python3 {self.RUNNER} {skip}{' '.join(phase.tests)}")
        process = subprocess.Popen(self.host.command(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   text=True, start_new_session=True)
        assert process.stdout is not None
        try:
            return self._collect(Lines(process.stdout), phase)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _collect(self, lines: Lines, phase: Phase) -> tuple[str | None, bool]:
        """Note results as they come; return the test that did not end, and whether the host went silent."""
        running = None
        while True:
            try:
                line = lines.next(SILENCE)
            except queue.Empty:
                return running or phase.name, True
            if line is None:
                return running, False
            data = json.loads(line)
            if "started" in data:
                running = data["started"]
                continue
            running = None
            self._note(Result(**{**data, "rows": tuple(data["rows"])}), phase)
            if data["outcome"] == KERNEL_BUG:
                # The runner may never end: its own memory or files can be what hangs.
                return None, False
