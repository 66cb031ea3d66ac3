# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""What tests/kmod/debug asks the debug kernel; the answer is JSON, a line each.

usage: debug_host.py log            what number the kernel's next message has
       debug_host.py check SEQUENCE [leaks]
                                    reports since then, leaks if asked for, whether lockdep is on
       debug_host.py faults         fault injection, a line for each call injected into
       debug_host.py lock-order     use read, write and a mapping of the device so that lockdep sees their locks
       debug_host.py kunit          results of the suites that are loaded
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from errno import errorcode
from pathlib import Path

import debug_faults as faults
import debug_reports as reports
from hostside import EXPECTED
from stress_ops import PMD, OpenDevice

KUNIT = Path("/sys/kernel/debug/kunit")


def tell(**data: object) -> None:
    """Write one line."""
    print(json.dumps(data), flush=True)


def log() -> None:
    """Tell the number of the next message."""
    tell(sequence=reports.log_since(0)[1])


def check(sequence: str, *more: str) -> None:
    """Tell what the kernel has reported, with the reason where it is known to be no fault of the driver."""
    lines, following, lost = reports.log_since(int(sequence))
    found = [{"title": report.title, "ours": report.ours, "reason": report.reason(reports.ALLOWED_IN_FAULTS),
              "text": report.text} for report in reports.reports_in(lines)]
    leaks = None
    if "leaks" in more:
        leaks = [{"text": leak, "reason": reports.leak_reason(leak)} for leak in reports.leaks()]
    tell(reports=found, leaks=leaks, lockdep=reports.lockdep_is_on(), lost=lost, sequence=following)


def inject() -> None:
    """Inject into one call after the other."""
    faults.enable()
    for name, (prepared, recover) in faults.TARGETS.items():
        begin = time.monotonic()
        outcomes, wrong = {}, ""
        try:
            outcomes = {errorcode.get(code, "success"): count
                        for code, count in sorted(faults.inject(name, prepared, recover).items())}
        except (faults.FaultError, OSError, RuntimeError) as error:
            wrong = f"{type(error).__name__}: {error}"
        taken = round(time.monotonic() - begin, 1)
        print(f"{name}: {taken} s, {outcomes or wrong}", file=sys.stderr, flush=True)
        tell(call=name, outcomes=outcomes, wrong=wrong, seconds=taken)


def lock_order() -> None:
    """Touch a mapping, then read and write: the first takes mmap_lock before the device's lock."""
    with OpenDevice(os.environ["GPU_ADDRESS"]) as device:
        for index in EXPECTED:
            with device.map(index, 0, PMD) as mapping:
                mapping.write(0, b"x")
        for index in EXPECTED:
            device.write(index, 0, b"y" * 4096)
            device.read(index, 0, 4096)
    tell(done=True)


def kunit() -> None:
    """Tell what each suite's result file says: lines of KTAP, a test each."""
    for results in sorted(KUNIT.glob("*/results")):
        text = results.read_text(encoding="utf-8")
        tests = re.findall(r"(?m)^ {4}(ok|not ok) \d+ (\S+)(.*)", text)
        tell(suite=results.parent.name, passed=[name for verdict, name, more in tests
                                                if verdict == "ok" and "# SKIP" not in more],
             failed=[name for verdict, name, _ in tests if verdict != "ok"],
             skipped=[name for verdict, name, more in tests if verdict == "ok" and "# SKIP" in more])


COMMANDS = {"log": log, "check": check, "faults": inject, "lock-order": lock_order, "kunit": kunit}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
