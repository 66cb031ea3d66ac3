# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The kernel module's contract is covered: every row has a test, and every test has a host on which it runs."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

import pytest

KMOD = Path(__file__).resolve().parents[2] / "kmod"
sys.path.insert(0, str(KMOD))

# after the path is set
import contract  # noqa: E402
from suite import results, table  # noqa: E402
from suite.builds import CONTROLLER_TESTS  # noqa: E402
from suite.driver import MAINLINE, OURS  # noqa: E402
from suite.host import Facts  # noqa: E402
from suite.machines import HOSTS  # noqa: E402
from suite.plan import phases  # noqa: E402


def planned(driver: object = OURS) -> set[str]:
    """Return the ids of the tests that run on one of the hosts of tests/kmod/all."""
    names = [name for host in HOSTS
             for phase in phases(Facts(host.kernel, host.arch, host.product, host.faults, ()), driver)
             for name in phase.tests]
    return {test.id() for test in contract.tests_in(unittest.TestLoader().loadTestsFromNames(sorted(set(names))))}


@pytest.mark.parametrize("row", contract.ROWS)
def test_every_row_has_a_test(row: str) -> None:
    assert contract.tests_by_row(CONTROLLER_TESTS)[row]


def test_every_test_runs_somewhere() -> None:
    assert {test.id() for test in contract.all_tests()} == planned()


def test_the_other_driver_has_one_layout() -> None:
    facts = Facts("7.3", "arm64", "gh200-120gb", (), ())
    assert {phase.layout for phase in phases(facts, OURS)} == {"mainline", "bar2"}
    assert {phase.layout for phase in phases(facts, MAINLINE)} == {"mainline"}


def test_a_row_that_does_not_exist_is_no_tag() -> None:
    with pytest.raises(KeyError):
        contract.contract("review-12")


def result(row: str, outcome: str, driver: str, message: str = "") -> results.Result:
    return results.Result("t", (row,), outcome, 0.0, message, driver=driver)


def test_side_by_side() -> None:
    found = [result("mainline-2", "ok", OURS.module),
             result("mainline-2", "fail", MAINLINE.module, "it is allowed"),
             result("mainline-2", "kernel-bug", MAINLINE.module, "[ 1.2] kernel BUG at mm/memory.c:1!")]
    assert table.markdown(found).splitlines()[-1].endswith("| ok | kernel BUG | kernel BUG at mm/memory.c:1! |")
    assert table.verdict(found).endswith(f"{MAINLINE.title} fails 1 of 1 rows")
    assert "mainline-2" not in table.unproven(found)
    assert "mainline-1" in table.unproven(found)


def test_a_row_that_was_only_skipped_is_not_proven() -> None:
    assert "mainline-2" in table.unproven([result("mainline-2", "skip", OURS.module)])


def test_what_was_skipped_has_not_passed() -> None:
    outcomes = ("ok", "ok", "skip", "fail", "error", "kernel-bug")
    tests = [results.Result("t", (), outcome, 0.0, "") for outcome in outcomes]
    assert results.summary("x", tests) == "x: 2 passed, 3 failed, 1 skipped"
