# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""This driver and the kernel's own side by side, row by row of the contract."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from contract import ROWS

from .driver import MAINLINE, OURS
from .results import KERNEL_BUG, OK, SKIP, Result

WIDTH = 100
NOT_RUN = "not run"


@dataclass(frozen=True)
class Cell:
    """A row under one driver: how many of its tests passed, of those that could be run, and what the first bad says."""

    passed: int
    failed: int
    skipped: int
    message: str

    @property
    def verdict(self) -> str:
        """Return one word, or two."""
        if self.failed:
            return "kernel BUG" if self.message.startswith("kernel BUG") else "FAILS"
        if self.passed:
            return "ok"
        return "skipped" if self.skipped else NOT_RUN

    def text(self) -> str:
        """Return the verdict with the counts and the message."""
        if self.failed:
            return f"{self.verdict} ({self.failed} of {self.failed + self.passed}): {self.message}"
        return f"{self.verdict} ({self.passed})" if self.passed else self.verdict


def cell(results: Iterable[Result]) -> Cell:
    """Sum up the results of one row under one driver. The worst of them speaks."""
    results = list(results)
    bad = sorted((result for result in results if result.bad), key=lambda result: result.outcome != KERNEL_BUG)
    message = bad[0].message if bad else ""
    if bad and bad[0].outcome == KERNEL_BUG and "BUG" not in message:
        message = f"kernel BUG: {message}"
    elif bad and bad[0].outcome == KERNEL_BUG:
        message = "kernel BUG" + message.partition("BUG")[2]
    return Cell(sum(result.outcome == OK for result in results), len(bad),
                sum(result.outcome == SKIP for result in results), message)


def by_row(results: Sequence[Result], module: str) -> dict[str, Cell]:
    """Return a cell for each row."""
    own = [result for result in results if result.driver == module]
    return {row: cell(result for result in own if row in result.rows) for row in ROWS}


def markdown(results: Sequence[Result]) -> str:
    """Return the table for the documentation: rows that neither driver was asked are left out."""
    ours, theirs = by_row(results, OURS.module), by_row(results, MAINLINE.module)
    lines = ["| row | this driver | the kernel's own | what the kernel's own does |", "|---|---|---|---|"]
    for row, text in ROWS.items():
        if ours[row].verdict == theirs[row].verdict == NOT_RUN:
            continue
        message = theirs[row].message.replace("|", "\\|")
        text = text.replace("|", "\\|")
        lines.append(f"| {row}: {text} | {ours[row].verdict} | {theirs[row].verdict} | {message} |")
    return "\n".join(lines)


def text(results: Sequence[Result]) -> str:
    """Return the table for a terminal, with the drivers that were tested."""
    drivers = [driver for driver in (OURS, MAINLINE) if any(result.driver == driver.module for result in results)]
    tables = {driver: by_row(results, driver.module) for driver in drivers}
    width = max((len(driver.title) for driver in drivers), default=0)
    lines = []
    for row, promise in ROWS.items():
        if all(cells[row].verdict == NOT_RUN for cells in tables.values()):
            continue
        lines.append(f"{row}: {promise}")
        lines += [f"    {driver.title:{width}}  {cells[row].text()[:WIDTH]}" for driver, cells in tables.items()]
    return "\n".join(lines)


def unproven(results: Sequence[Result]) -> list[str]:
    """Return the rows for which no test of this driver has passed."""
    return [row for row, cell in by_row(results, OURS.module).items() if not cell.passed]


def verdict(results: Sequence[Result]) -> str:
    """Return the last line: what each driver fails."""
    parts = []
    for driver in (OURS, MAINLINE):
        cells = by_row(results, driver.module).values()
        asked = [cell for cell in cells if cell.passed or cell.failed]
        parts.append(f"{driver.title} fails {sum(bool(cell.failed) for cell in asked)} of {len(asked)} rows")
    return "kmod comparison: " + ", ".join(parts)
