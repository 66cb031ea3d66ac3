# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The commands of tests/kmod: run, rows."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import contract

from . import results
from .builds import CONTROLLER_TESTS
from .driver import DRIVERS
from .host import TESTS, Host, HostError
from .plan import phases
from .session import Session

REPORTS = TESTS.parent / ".build" / "kmod"


def run(argv: list[str]) -> int:
    """Test a driver on a host that runs already."""
    parser = argparse.ArgumentParser(prog="tests/kmod/run", description="Tests the kernel module on an emulated "
                                     "host that runs already (tests/lab/lab start NAME).")
    parser.add_argument("name", nargs="?", default="kmod", help="the host's name, %(default)s by default")
    parser.add_argument("--driver", choices=sorted(DRIVERS), default="ours",
                        help="which driver, %(default)s by default")
    parser.add_argument("--results", type=Path, help="where the JSON lines go, one a test")
    parser.add_argument("--phase", action="append", help="only this phase of the run; repeatable")
    options = parser.parse_args(argv)
    try:
        session = Session(Host(options.name), DRIVERS[options.driver], options.name)
        plan = [phase for phase in phases(session.facts, session.driver)
                if not options.phase or phase.name in options.phase]
        outcome = session.run(plan)
    except HostError as error:
        print(f"run: {error}", file=sys.stderr)
        return 2
    results.write(options.results or REPORTS / f"{options.name}-{options.driver}.jsonl", outcome)
    print(results.summary("kmod behaviour", outcome))
    return 1 if not outcome or any(result.bad for result in outcome) else 0


def rows() -> int:
    """Print the table from row to tests."""
    missing = 0
    print("| row | what is promised | tests |\n|---|---|---|")
    for row, tests in contract.tests_by_row(CONTROLLER_TESTS).items():
        missing += not tests
        names = "<br>".join(f"`{test}`" for test in tests) or "NONE"
        print(f"| {row} | {contract.ROWS[row].replace('|', chr(92) + '|')} | {names} |")
    return 1 if missing else 0
