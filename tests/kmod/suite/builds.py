# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Tests that need no host: does a driver build for kernels other than its own?"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

from .driver import KMOD, Driver, mainline_sources, our_sources
from .results import ERROR, FAIL, OK, Result, place

ROOTS = {"6.12": "trixie", "7.2": "forky", "7.3": "trixie"}
PREFIX = "builds.arm64_"
# Test id -> rows of the contract, for tests that no unittest module has.
CONTROLLER_TESTS = {PREFIX + kernel: ("mainline-11",) for kernel in ROOTS}
CROSS = ("ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-")


def _root(suite: str) -> Path:
    done = subprocess.run(["sh", KMOD / "tests" / "buildroot.sh", suite], check=True, stdout=subprocess.PIPE, text=True)
    return Path(done.stdout.strip().splitlines()[-1])


def _headers(root: Path, kernel: str) -> str | None:
    found = sorted(path.name for path in (root / "usr" / "src").glob(f"linux-headers-{kernel}.*-arm64"))
    return found[-1] if found else None


def _make(driver: Driver, root: Path, headers: str) -> str:
    """Return what is wrong with the build; nothing when it is fine."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for source in our_sources() if driver.ours else mainline_sources(directory):
            if source.parent != directory:
                (directory / source.name).write_bytes(source.read_bytes())
        argv = ["sh", KMOD / "tests" / "enter.sh", root, "--bind", f"{directory}:/build", "--", "make", "-s", "-C",
                f"/usr/src/{headers}", "M=/build", *CROSS, "modules"]
        done = subprocess.run([os.fspath(word) for word in argv], check=False, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        wrong = [line for line in done.stdout.splitlines() if "error:" in line or "warning:" in line]
        if done.returncode or not (directory / driver.file).exists():
            return (wrong or done.stdout.splitlines() or ["no output"])[0]
        return wrong[0] if wrong else ""


def builds(driver: Driver) -> list[Result]:
    """Return one result per kernel."""
    results = []
    for kernel, suite in ROOTS.items():
        test, start = PREFIX + kernel, time.monotonic()
        root = _root(suite)
        headers = _headers(root, kernel)
        message = _make(driver, root, headers) if headers else f"no headers of {kernel} in the build root"
        outcome = OK if not message else FAIL if headers else ERROR
        result = Result(test, CONTROLLER_TESTS[test], outcome, round(time.monotonic() - start, 1), message)
        results.append(place(result, driver.module, "build roots", "builds"))
        print(results[-1].line(), flush=True)
    return results
