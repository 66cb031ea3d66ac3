# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""What came of the tests: one JSON line each, and sums over them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

OK, FAIL, ERROR, SKIP, KERNEL_BUG = "ok", "fail", "error", "skip", "kernel-bug"
BAD = (FAIL, ERROR, KERNEL_BUG)


@dataclass(frozen=True)
class Result:
    """One test under one driver, on one host, in one phase of the run. ``output`` is what it printed."""

    test: str
    rows: tuple[str, ...]
    outcome: str
    seconds: float
    message: str
    output: str = ""
    driver: str = ""
    host: str = ""
    phase: str = ""

    @property
    def bad(self) -> bool:
        """Return whether it says that something is wrong."""
        return self.outcome in BAD

    def line(self) -> str:
        """Return the result for a person."""
        reason = f": {self.message}" if self.message else ""
        return f"{self.outcome:<10} {self.test} ({self.phase}, {self.seconds:.1f} s){reason}"


def from_json(text: str) -> Result:
    """Return a result from its line."""
    data = json.loads(text)
    return Result(**{**data, "rows": tuple(data["rows"])})


def place(result: Result, driver: str, host: str, phase: str) -> Result:
    """Return a result that says where it comes from."""
    return replace(result, driver=driver, host=host, phase=phase)


def write(path: Path, results: Iterable[Result]) -> None:
    """Write one JSON line per result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(asdict(result)) + "\n" for result in results), encoding="utf-8")


def read(paths: Iterable[Path]) -> list[Result]:
    """Return the results of files. Raises OSError."""
    return [from_json(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


def summary(title: str, results: Iterable[Result]) -> str:
    """Return the last line of a run: what was skipped has not passed."""
    outcomes = [result.outcome for result in results]
    failed = sum(outcome in BAD for outcome in outcomes)
    skipped = outcomes.count(SKIP)
    return (f"{title}: {outcomes.count(OK)} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
