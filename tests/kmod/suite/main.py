# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The commands of tests/kmod: run, compare, all, rows."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import contract

from . import results, table
from .builds import CONTROLLER_TESTS, builds
from .driver import DRIVERS, MAINLINE, OURS, Driver
from .host import TESTS, Host, HostError
from .machines import HOSTS, Machine, running
from .plan import phases
from .session import Session

REPORTS = TESTS.parent / ".build" / "kmod"


def _report(title: str, driver: Driver) -> Path:
    return REPORTS / f"{title}-{driver.module}.jsonl"


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
    driver = DRIVERS[options.driver]
    try:
        session = Session(Host(options.name), driver, options.name)
        plan = [phase for phase in phases(session.facts, driver) if not options.phase or phase.name in options.phase]
        outcome = session.run(plan)
    except HostError as error:
        print(f"run: {error}", file=sys.stderr)
        return 2
    results.write(options.results or _report(options.name, driver), outcome)
    print(results.summary("kmod behaviour", outcome))
    return 1 if not outcome or any(result.bad for result in outcome) else 0


def compare(argv: list[str]) -> int:
    """Test this driver and the kernel's own, and print them side by side."""
    parser = argparse.ArgumentParser(prog="tests/kmod/compare", description="This driver and the kernel's own, side by "
                                     "side, on an emulated host that runs already.")
    parser.add_argument("name", nargs="?", default="kmod", help="the host's name, %(default)s by default")
    parser.add_argument("--markdown", action="store_true", help="print the table for the documentation")
    parser.add_argument("--from", action="append", type=Path, dest="files",
                        help="results of an earlier run; repeatable")
    options = parser.parse_args(argv)
    try:
        found = results.read(options.files) if options.files else _run_both(options.name)
    except (HostError, OSError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    print(table.markdown(found) if options.markdown else table.text(found))
    print(table.verdict(found))
    ours = [result for result in found if result.driver == OURS.module]
    return 1 if not ours or any(result.bad for result in ours) else 0


def _run_both(name: str) -> list[results.Result]:
    """Run this driver first: the kernel's own may leave a host that nothing more can be learned from."""
    found = []
    for driver in (OURS, MAINLINE):
        print(f"=== {driver.title}", flush=True)
        session = Session(Host(name), driver, name)
        outcome = [*builds(driver), *session.run(phases(session.facts, driver))]
        results.write(_report(name, driver), outcome)
        found += outcome
    return found


def run_all(argv: list[str]) -> int:
    """Test this driver on every host of the list."""
    parser = argparse.ArgumentParser(prog="tests/kmod/all", description="The behaviour suite on every emulated host "
                                     "that the contract needs, one after the other.")
    parser.add_argument("--only", action="append", help="hosts with this word in their title; repeatable")
    parser.add_argument("--host", default="kmod-all", help="the name of the hosts, for two runs side by side")
    parser.add_argument("--list", action="store_true", help="print the titles")
    options = parser.parse_args(argv)
    chosen = [machine for machine in HOSTS if any(word in machine.title for word in options.only or [""])]
    if options.list or not chosen:
        print("\n".join(machine.title for machine in HOSTS))
        return 0 if options.list else 2
    found = [] if options.only else builds(OURS)
    for machine in chosen:
        outcome = _run_machine(machine, options.host)
        results.write(_report(machine.title, OURS), outcome)
        print(results.summary(machine.title, outcome), flush=True)
        found += outcome
    unproven = table.unproven(found) if not options.only else []
    print(table.text(found))
    for row in unproven:
        print(f"{row}: no test has passed")
    print(results.summary("kmod behaviour on all hosts", found))
    return 1 if unproven or any(result.bad for result in found) else 0


def _run_machine(machine: Machine, name: str) -> list[results.Result]:
    """Return all results; a host that cannot be used is one error."""
    print(f"=== {machine.title}", flush=True)
    try:
        with running(machine, name) as host:
            session = Session(host, OURS, machine.title)
            return session.run(phases(session.facts, OURS))
    except HostError as error:
        print(f"all: {error}", file=sys.stderr)
        failed = results.Result("host", (), results.ERROR, 0.0, str(error))
        return [results.place(failed, OURS.module, machine.title, "start")]


def rows() -> int:
    """Print the table from row to tests."""
    missing = 0
    print("| row | what is promised | tests |\n|---|---|---|")
    for row, tests in contract.tests_by_row(CONTROLLER_TESTS).items():
        missing += not tests
        names = "<br>".join(f"`{test}`" for test in tests) or "NONE"
        print(f"| {row} | {contract.ROWS[row].replace('|', chr(92) + '|')} | {names} |")
    return 1 if missing else 0
