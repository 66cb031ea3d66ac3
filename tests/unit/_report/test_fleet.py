# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many records as one fleet: which one of a host counts, in what order, and what they say together."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.fleet import (
    Finding,
    Problem,
    ProductGroup,
    Timing,
    findings,
    merge,
    products,
    timings,
)
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.record import OUTCOMES
from ansible_collections.nvgrace.passthrough.tests.unit._report.records import (
    GIB,
    NOW,
    PRODUCT,
    check,
    device,
    fleet,
    gpu,
    record,
)

HOUR = timedelta(hours=1)


def hosts(found: Any) -> list[str]:
    return [item.host for item in found]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_newest_record_of_a_host_counts(order: tuple[int, ...]) -> None:
    records = [record(at=NOW - number * HOUR, reboot_required=number == 0) for number in range(3)]
    (kept,) = fleet(*(records[number] for number in order)).records
    assert (kept.made_at, kept.reboot_required) == (NOW, True)


def test_of_two_records_of_one_time_the_first_directory_has_it() -> None:
    (kept,) = fleet(record(reboot_required=True), record()).records
    assert kept.reboot_required


@pytest.mark.parametrize("names", [
    ["grace", "grace1", "grace2", "grace10", "grace10a", "grace011"],
    ["10.0.0.2", "10.0.0.10", "a", "b2", "b10"],
    ["rack1-gpu9", "rack1-gpu10", "rack2-gpu1"],
    ["grace02", "grace2"],
    ["grace", "grace1", "grace\u00b2", "grace\u0663"],
])
def test_hosts_are_in_the_order_that_people_count(names: list[str]) -> None:
    assert hosts(fleet(*(record(name) for name in reversed(names))).records) == names
    assert [problem.name for problem in fleet(expected=reversed(names)).problems] == names


@given(names=st.lists(st.text(min_size=1, max_size=6).filter(str.strip), max_size=4))
def test_any_name_has_a_place(names: list[str]) -> None:
    found = fleet(expected=names)
    assert found == fleet(expected=reversed(names))


def test_expected_hosts_without_a_record_are_problems() -> None:
    alien = Problem("x.json", "The file is not in this report: it is not a dictionary.")
    found = fleet(record("grace1"), problems=[alien], expected=["grace1", "grace2", "grace2"])
    assert found.problems == (alien, Problem("grace2", "There is no record of this host yet."))


@pytest.mark.parametrize(("ages", "old"), [
    ((0, 24), []),
    ((0, 25), ["grace1"]),
    ((100, 124), []),
    ((100, 125), ["grace1"]),
    # Of the future, by a clock that is wrong.
    ((-1000, 3, 4), []),
    ((-1000, 3, 40), ["grace2"]),
    ((-1000,), []),
])
def test_old_is_what_the_last_run_did_not_reach(ages: tuple[int, ...], old: list[str]) -> None:
    found = fleet(*(record(f"grace{number}", NOW - age * HOUR) for number, age in enumerate(ages)), now=NOW)
    assert hosts(found.old) == old
    assert [item.host for item in found.old] == old


def test_old_after_is_the_users() -> None:
    records = [record("grace0"), record("grace1", NOW - 5 * HOUR)]
    assert hosts(merge(records, [], NOW, old_after_hours=4).old) == ["grace1"]
    assert hosts(merge(records, [], NOW, old_after_hours=5).old) == []


def test_outcomes_and_stopped_hosts_are_the_worst_first() -> None:
    found = fleet(record("a"), record("b"), record("c", failure="No.", quarantined=True), record("d", failure="No."),
                  record("e", devices=[]))
    assert found.outcomes == (("failed", 1), ("quarantined", 1), ("incomplete", 1), ("verified", 2))
    assert hosts(found.stopped) == ["d", "c"]
    named = [outcome for outcome, _count in found.outcomes]
    assert named == sorted(named, key=OUTCOMES.index)


def test_an_empty_fleet() -> None:
    found = fleet()
    assert (found.records, found.old, found.outcomes, found.stopped, found.outliers) == ((), (), (), (), ())
    assert (findings(found), timings(found), products(found)) == ((), (), ())


def test_findings_are_the_worst_first_then_by_hosts() -> None:
    def host(name: str, accepted: bool = False, *checks: dict[str, Any]) -> Any:
        return record(name, checks=checks, accepted=["kvm"] if accepted else [])

    kvm, low = check("kvm", "fail", "No.", "Load it."), check("memlock", "warn", "Low.", "Raise it.")
    lower = check("memlock", "warn", "Lower.", "Raise it.")
    found = findings(fleet(
        host("a", True, kvm, low, check("iommu", "ok")),
        host("b", False, low, check("pages", "warn", "Few.", "Add some.")),
        host("c", False, kvm, lower),
        host("d", False, check("dkms", "fail", "None.", "Install it."), lower),
        host("e", False, kvm, {**lower, "remedy": "Other."}),
    ))
    assert found == (
        Finding("kvm", "fail", ("No.",), "Load it.", ("c", "e")),
        Finding("dkms", "fail", ("None.",), "Install it.", ("d",)),
        Finding("kvm", "accepted", ("No.",), "Load it.", ("a",)),
        Finding("memlock", "warn", ("Low.", "Lower."), "Raise it.", ("a", "b", "c", "d")),
        Finding("memlock", "warn", ("Lower.",), "Other.", ("e",)),
        Finding("pages", "warn", ("Few.",), "Add some.", ("b",)),
    )


def test_an_accepted_warning_is_a_warning() -> None:
    (found,) = findings(fleet(record(checks=[check("kvm", "warn", "No.")], accepted=["kvm"])))
    assert found.status == "warn"


def test_the_most_frequent_reason_is_the_first() -> None:
    whys = ["Low.", "Lower.", "Lower."]
    (found,) = findings(fleet(*(record(f"grace{number}", checks=[check("memlock", "warn", why)])
                                for number, why in enumerate(whys))))
    assert found.why == ("Lower.", "Low.")


@pytest.mark.parametrize(("seconds", "expected"), [
    ([2.0], (Timing("gpu_verify", 1, 2.0, 2.0, "grace0"),)),
    ([2.0, 9.5, 3.0], (Timing("gpu_verify", 3, 3.0, 9.5, "grace1"),)),
    ([2.0, 4.0], (Timing("gpu_verify", 2, 3.0, 4.0, "grace1"),)),
    ([None, 4.0], (Timing("gpu_verify", 1, 4.0, 4.0, "grace1"),)),
    ([0.0], (Timing("gpu_verify", 1, 0.0, 0.0, "grace0"),)),
    ([None], ()),
])
def test_timings(seconds: list[Any], expected: tuple[Timing, ...]) -> None:
    found = fleet(*(record(f"grace{number}", seconds=value) for number, value in enumerate(seconds)))
    assert timings(found) == expected


def test_timings_are_in_the_order_of_the_stages() -> None:
    stages = {name: {"changed": True, "elapsed": 1.0} for name in ("gpu_kmod", "gpu_bind", "gpu_host")}
    assert [timing.stage for timing in timings(fleet(record(stages=stages)))] == ["gpu_host", "gpu_kmod", "gpu_bind"]


def test_products_are_the_most_frequent_first() -> None:
    two = ["0009:01:00.0", "0019:01:00.0"]
    unbound = device(driver=None, srcversion=None, memory=None)
    found = products(fleet(
        record("a", gpus=[gpu(address) for address in two], devices=[device(address) for address in two]),
        record("b", devices=[device(driver="vfio_pci", srcversion=None, memory=95 * GIB)]),
        record("c", gpus=[gpu(product="GB200", driver=None)], devices=[]),
        record("d", gpus=[gpu(product="B40", driver=None)], devices=[unbound]),
    ))
    assert found == (
        ProductGroup(PRODUCT, 3, 2, (("nvgrace_gpu_vfio_pci A1B2", 2), ("vfio_pci", 1)),
                     ((96 * GIB, 2), (95 * GIB, 1))),
        ProductGroup("B40", 1, 1, (("no driver", 1),), ()),
        ProductGroup("GB200", 1, 1, (("no driver", 1),), ()),
    )
