#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Runs behaviour tests on the emulated host and writes one JSON line per test to standard output.

usage: runner.py [--after ID] TEST...

--after leaves out all tests up to that one, which a run before this one has got to. A run ends with an alarm in the
kernel log: what a kernel says after one proves nothing.

A first line ``{"started": ID}`` tells which test it was, should the host not live to tell more. The second has id,
contract rows, outcome (ok, fail, error, skip, kernel-bug), seconds, message and what the test printed. An alarm in the
kernel log during a test is "kernel-bug" whatever the test itself says. All else goes to standard error.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import re
import sys
import time
import unittest

import hostside
from contract import rows_of, tests_in

ALARM = re.compile(r"kernel BUG|BUG: |WARNING: |Oops|Internal error|Call trace|possible circular locking")
# Longer than any test takes: then the threads' stacks are printed, for whoever looks into the hang.
STACKS_AFTER = 120


class KernelLog:
    """The kernel's messages from now on."""

    def __init__(self) -> None:
        """Skip what is there."""
        self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._fd, 0, os.SEEK_END)

    def read(self) -> list:
        """Return the new messages, one line each."""
        lines = []
        while True:
            try:
                record = os.read(self._fd, 8192)
            except BlockingIOError:
                return lines
            except BrokenPipeError:  # overwritten before it was read
                continue
            lines.append(record.decode(errors="replace").partition(";")[2].splitlines()[0])


class JsonResult(unittest.TestResult):
    """Reports each test as it ends."""

    def __init__(self, stream: io.TextIOBase) -> None:
        """Report to a stream."""
        super().__init__()
        self._stream = stream
        self._log = KernelLog()

    def _emit(self, data: dict) -> None:
        print(json.dumps(data), file=self._stream, flush=True)

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802  (unittest's name)
        """Begin with the outcome that an uneventful test has."""
        super().startTest(test)
        self._log.read()
        self._outcome, self._message = "ok", ""
        self._emit({"started": test.id()})
        faulthandler.dump_traceback_later(STACKS_AFTER)
        self._output = io.StringIO()
        self._redirect = contextlib.redirect_stdout(self._output)
        self._redirect.__enter__()
        self._begin = time.monotonic()

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        """Ask the kernel log, and report."""
        seconds = time.monotonic() - self._begin
        self._redirect.__exit__(None, None, None)
        faulthandler.cancel_dump_traceback_later()
        alarms = [line for line in self._log.read() if ALARM.search(line)]
        if alarms:
            self._outcome, self._message = "kernel-bug", alarms[0].strip()
            self.stop()
        self._emit({"test": test.id(), "rows": rows_of(test), "outcome": self._outcome,
                    "seconds": round(seconds, 3), "message": self._message, "output": self._output.getvalue()})
        super().stopTest(test)

    def _bad(self, outcome: str, error: tuple, test: unittest.TestCase) -> None:
        print(self._exc_info_to_string(error, test), file=sys.stderr)
        # The first of several: the others often follow from it.
        if self._outcome == "ok":
            text = f"{error[0].__name__}: {error[1]}" if outcome == "error" else str(error[1])
            self._outcome, self._message = outcome, " ".join(text.split())[:400]

    def addFailure(self, test: unittest.TestCase, err: tuple) -> None:  # noqa: N802
        """Note a failure."""
        self._bad("fail", err, test)

    def addError(self, test: unittest.TestCase, err: tuple) -> None:  # noqa: N802
        """Note an error. One of a class or module is a test of its own, which never started."""
        if not isinstance(test, unittest.TestCase):
            self.startTest(test)
            self._bad("error", err, test)
            self.stopTest(test)
        else:
            self._bad("error", err, test)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: tuple) -> None:  # noqa: N802
        """Note a subtest that went wrong."""
        if err is not None:
            self._bad("fail" if issubclass(err[0], test.failureException) else "error", err, test)

    def addSkip(self, _test: unittest.TestCase, reason: str) -> None:  # noqa: N802
        """Note the reason."""
        if self._outcome == "ok":
            self._outcome, self._message = "skip", reason


def skip_what_is_ours(suite: unittest.TestSuite) -> None:
    """Have tests of what only this project's driver has skipped for another one."""
    if hostside.OURS:
        return
    for item in tests_in(suite):
        method = getattr(item, item._testMethodName)
        reason = getattr(method, "ours_only", None)
        if reason:
            method.__func__.__unittest_skip__ = True
            method.__func__.__unittest_skip_why__ = reason


def main(names: list) -> int:
    """Run the tests in the order given; 0 whatever they say, because the lines tell it."""
    results = os.fdopen(os.dup(1), "w")
    sys.stdout = sys.stderr
    after = names[1] if names[:1] == ["--after"] else None
    tests = list(tests_in(unittest.TestLoader().loadTestsFromNames(names[2:] if after else names)))
    if after:
        tests = tests[1 + [test.id() for test in tests].index(after):]
    suite = unittest.TestSuite(tests)
    skip_what_is_ours(suite)
    suite.run(JsonResult(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
