# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""What the stress and the debug kernel's run call a fault."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

KMOD = Path(__file__).resolve().parents[2] / "kmod"
sys.path.insert(0, str(KMOD))

# after the path is set
import debug_reports as reports  # noqa: E402
import stress_host  # noqa: E402
import stress_kernel as kernel  # noqa: E402
from stress_board import OK, Board  # noqa: E402
from suite import debug, debugreport, stress  # noqa: E402

PART = stress_host.Part("load", lambda amount: Counter(), 5.0, ("SIGBUS", "EIO"))


@pytest.mark.parametrize(("outcome", "allowed", "unexpected"), [
    (("read", OK), {}, []),
    (("read", "EIO"), {"EIO": 3}, []),
    (("touch", "SIGBUS"), {"SIGBUS": 3}, []),
    (("read", "SIGBUS"), {}, ["read: SIGBUS 3 times"]),
    (("read", "ETIME"), {}, ["read: ETIME 3 times"]),
    (("read", "wrong data"), {}, ["read: wrong data 3 times"]),
])
def test_outcomes(outcome: tuple, allowed: dict, unexpected: list) -> None:
    row = stress_host.Row("load")
    stress_host.judge(PART, Counter({outcome: 3}), row)
    assert (row.count, row.allowed, row.unexpected) == (3, allowed, unexpected)


@pytest.mark.parametrize(("amount", "halves"), [(5.0, (2.5, 2.5)), (7, (3, 4))])
def test_a_part_has_two_halves(amount: float, halves: tuple) -> None:
    assert stress_host.Part("", PART.run, amount).halves() == halves


@pytest.mark.parametrize(("counts", "leaks"), [((0, 60, 120), True), ((0, 500, 520), False), ((100, 40, 200), False)])
def test_a_leak_grows_in_both_halves(counts: tuple, leaks: bool) -> None:
    assert bool(kernel.grown(*({"filp": count} for count in counts), 50)) is leaks


def test_file_systems_may_grow() -> None:
    assert not kernel.grown({"dentry": 0}, {"dentry": 90}, {"dentry": 200}, 50)


def test_only_known_messages_are_allowed() -> None:
    lines = ["vfio-pci 0: No device request channel registered, blocked until released by user", "BUG: bad page state"]
    assert kernel.unexpected(lines, kernel.ALLOWED) == lines[1:]


def test_board_counts_what_a_killed_user_did() -> None:
    board = Board(2, ("read", "write"))
    board.begin(1, "write")
    board.end(1, "SIGKILL")
    board.end(1, "SIGKILL")  # it was in none any more
    assert board.counts() == Counter({("write", "SIGKILL"): 1})


LOG = ["usb 1-1: new device",
       "WARNING: drivers/vfio/group.c:510 at vfio_group_release+0x9e/0xb0, CPU#1: python3/77",
       " nvgrace_probe+0x1/0x2 [nvgrace_gpu_vfio_pci]",
       "BUG: KASAN: slab-use-after-free in nvgrace_mmap+0x9e/0xb0 [nvgrace_gpu_vfio_pci]",
       "Read of size 8"]


def test_reports_are_found_in_the_log() -> None:
    found = reports.reports_in(LOG)
    assert [len(report.text.splitlines()) for report in found] == [2, 2]
    assert all(report.ours for report in found)
    assert [bool(report.reason(reports.ALLOWED_IN_FAULTS)) for report in found] == [True, False]


def answer(**changes: object) -> dict:
    """Return what a quiet kernel says."""
    return {"reports": [], "leaks": [], "lockdep": True, "lost": False, **changes}


@pytest.mark.parametrize(("said", "faults", "known_bad", "failed"), [
    ({}, False, False, 0),
    ({"lockdep": False}, False, False, 1),
    ({"lockdep": False}, True, False, 0),
    ({"lost": True}, True, False, 1),
    ({"reports": [{"title": "BUG: x", "ours": False, "reason": "core", "text": "x"}]}, False, False, 1),
    ({"reports": [{"title": "BUG: x", "ours": False, "reason": "core", "text": "x"}]}, True, False, 0),
    ({"reports": [{"title": "BUG: x", "ours": True, "reason": None, "text": "x"}]}, True, False, 1),
    ({"leaks": [{"text": "unreferenced object", "reason": None}]}, False, False, 1),
    ({"lockdep": False}, False, True, 0),
    ({}, False, True, 1),
])
def test_what_the_kernel_says(said: dict, faults: bool, known_bad: bool, failed: int) -> None:
    part = debug.Part("part")
    debug.DebugRun(None, debug.QUICK)._judge(part, answer(**said), faults, known_bad)  # type: ignore[arg-type]
    assert (part.passed, part.failed) == (1 - failed, failed)


def test_sums() -> None:
    parts = [debug.Part("a", 3, 1, 2), debug.Part("b", 4)]
    assert debugreport.summary(parts) == "kmod debug: 7 passed, 1 failed, 2 skipped"
    assert stress.summary([stress.Row("a"), stress.Row("b", unexpected=("x",))]) == "kmod stress: 1 passed, 1 failed"
