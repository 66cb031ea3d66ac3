# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""What came of a run on the debug kernel: for the terminal, and as Markdown for the documentation."""

from __future__ import annotations

from collections.abc import Sequence

from .debug import Part

LOOKS_FOR = ("KASAN (generic, inline, vmalloc, multi-shot), lockdep (PROVE_LOCKING), DEBUG_ATOMIC_SLEEP, kmemleak, "
             "UBSAN (bounds, shift, bool, enum), DEBUG_OBJECTS, DEBUG_LIST, DEBUG_VM, hung task detection, failslab, "
             "fail_page_alloc, fail_usercopy; VFIO group and device files, IOMMUFD")


def table(parts: Sequence[Part]) -> str:
    """Return the parts for a person."""
    lines = [f"{'part':<42} {'passed':>6} {'failed':>6} {'skipped':>7} {'allowed reports':>15} {'seconds':>7}"]
    for part in parts:
        lines.append(f"{part.name:<42} {part.passed:>6} {part.failed:>6} {part.skipped:>7} "
                     f"{sum(part.allowed.values()):>15} {part.seconds:>7.0f}")
    return "\n".join(lines)


def summary(parts: Sequence[Part]) -> str:
    """Return the last line of a run: what was skipped has not passed."""
    skipped = sum(part.skipped for part in parts)
    return (f"kmod debug: {sum(part.passed for part in parts)} passed, {sum(part.failed for part in parts)} failed"
            + (f", {skipped} skipped" if skipped else ""))


def _allowed(parts: Sequence[Part]) -> list[str]:
    total: dict[tuple[str, str], int] = {}
    for part in parts:
        for (title, reason), number in part.allowed.items():
            title = title.split("+0x")[0]
            total[title, reason] = total.get((title, reason), 0) + number
    return [f"| `{title}` | {number} | {reason} |" for (title, reason), number in total.items()]


def markdown(parts: Sequence[Part], kernel: str, quick: bool) -> str:
    """Return the run as Markdown."""
    lines = ["# The module on the debug kernel", "", f"Kernel {kernel}, amd64, in software emulation"
             f"{', the short form' if quick else ''}. It has {LOOKS_FOR}.", "",
             "| part | passed | failed | skipped | allowed reports | seconds |", "|---|---|---|---|---|---|"]
    for part in parts:
        lines.append(f"| {part.name} | {part.passed} | {part.failed} | {part.skipped} | "
                     f"{sum(part.allowed.values())} | {part.seconds:.0f} |")
    lines += ["", f"{summary(parts)}.", ""]
    allowed = _allowed(parts)
    if allowed:
        lines += ["## Reports about other code", "", "| report | times | why it is no fault of the driver |",
                  "|---|---|---|", *allowed, ""]
    lines += ["## Each part", ""]
    for part in parts:
        lines += [f"- {part.name}", *(f"  - {note}" for note in part.notes),
                  *(f"  - FAILED: {' '.join(problem.split())}" for problem in part.problems)]
    return "\n".join(lines) + "\n"
