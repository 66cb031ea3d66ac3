# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Tests that need no host: does a driver build for kernels other than its own?"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from . import crossbuild
from .driver import Driver, collect_sources
from .results import FAIL, OK, Result, place

PREFIX = "builds.arm64_"
# Test id -> rows of the contract, for tests that no unittest module has.
CONTROLLER_TESTS = {PREFIX + kernel: ("mainline-11",) for kernel in ("6.12", "7.2", "7.3")}


def builds(driver: Driver) -> list[Result]:
    """Return one result per kernel."""
    results = []
    for test, rows in CONTROLLER_TESTS.items():
        start, message = time.monotonic(), ""
        with tempfile.TemporaryDirectory() as name:
            collect_sources(driver, Path(name))
            try:
                crossbuild.build(Path(name), test.removeprefix(PREFIX), "arm64")
            except crossbuild.BuildError as error:
                message = str(error)
        result = Result(test, rows, FAIL if message else OK, round(time.monotonic() - start, 1), message)
        results.append(place(result, driver.module, "build roots", "builds"))
        print(results[-1].line(), flush=True)
    return results
