# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The command tests/kmod/debug: everything on a kernel that looks for mistakes."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import debugkernel, debugreport
from .crossbuild import BuildError
from .debug import FULL, QUICK, DebugRun, leave, put_mainline
from .driver import MAINLINE, OURS
from .host import Host, HostError
from .machines import Machine, running
from .stress import CDEV, GROUP

NAME = "kmod-debug"
MACHINE = Machine(kernel="debug", arch="amd64")
PARTS = ("behaviour", "iommufd", "stress", "kunit", "lock-order", "faults")


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="tests/kmod/debug", description="The kernel module on a kernel with KASAN, "
                                     "lockdep, kmemleak, UBSAN and fault injection.")
    parser.add_argument("--quick", action="store_true", help="the short form of suite and stress")
    parser.add_argument("--report", type=Path, help="where to write what came of it, as Markdown")
    parser.add_argument("--mainline", action="store_true", help="show lockdep the kernel's own driver, too")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; repeatable")
    parser.add_argument("--host", help="a host with the debug kernel that runs already, and goes on running")
    return parser.parse_args(argv)


@contextmanager
def _host(name: str | None) -> Iterator[Host]:
    if name:
        host = Host(name)
        host.facts()  # raises where there is no such host
        yield host
    else:
        with running(MACHINE, NAME) as host:
            yield host


def carry_out(run: DebugRun, wanted: list[str], mainline: bool, work: Path) -> None:
    """Go through the parts; those come last after which the kernel sees less."""
    run.baseline()
    for api in (GROUP, CDEV):
        if "behaviour" in wanted:
            run.behaviour(api)
    if "iommufd" in wanted:
        run.iommufd()
    for api in (GROUP, CDEV):
        if "stress" in wanted:
            run.stress(api)
    if "lock-order" in wanted:
        run.lock_order(OURS)
    if "kunit" in wanted:
        run.kunit(debugkernel.build_kunit(work / "kunit"))
    for api in (GROUP, CDEV):
        if "faults" in wanted:
            run.faults(api)
    if mainline:
        # Lockdep is off after any report, and the comparison needs it.
        leave(run.host, OURS)
        run.host.reset()
        put_mainline(run.host, work / "mainline")
        run.lock_order(MAINLINE)
        leave(run.host, MAINLINE)


def main(argv: list[str]) -> int:
    """Test the module on the debug kernel."""
    options = parse(argv)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        try:
            os.environ["NVGRACE_KMOD_KO"] = str(debugkernel.build_driver(OURS, work / "ours"))
            with _host(options.host) as host:
                run = DebugRun(host, QUICK if options.quick else FULL)
                carry_out(run, options.part or list(PARTS), options.mainline, work)
                kernel = host.do("uname -r").strip()
        except (BuildError, HostError) as error:
            print(f"debug: {error}", file=sys.stderr)
            return 2
    if options.report:
        options.report.write_text(debugreport.markdown(run.parts, kernel, options.quick), encoding="utf-8")
    print(debugreport.table(run.parts))
    print(debugreport.summary(run.parts))
    return 1 if any(part.failed for part in run.parts) else 0
