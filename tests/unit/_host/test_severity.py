# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check weighs for each profile, and that the page for people says the same."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.checks import Check, run_checks
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.severity import (
    PROFILES,
    SEVERITY,
    judge,
    resolve_profiles,
    severity_of,
)

PAGE = Path(__file__).parents[3] / "docs" / "preflight.md"


def _status(facts, name, *profiles):
    return next(check for check in judge(facts, profiles) if check.id == name)


def test_each_check_has_a_weight_for_each_profile(facts):
    assert [check.id for check in run_checks(facts)] == list(SEVERITY)
    assert {len(row) for row in SEVERITY.values()} == {len(PROFILES)}
    assert {level for row in SEVERITY.values() for level in row} == {"fail", "warn", "skip"}


@pytest.mark.parametrize(("profiles", "status"), [
    (("native",), "fail"), (("no-accel",), "warn"), (("compat",), "warn"), (("none",), "warn"),
    (("compat", "native"), "fail"),
])
def test_the_most_demanding_profile_decides(facts, profiles, status):
    bare = replace(facts, iommu=replace(facts.iommu, iommufd=False))
    assert _status(bare, "iommufd", *profiles).status == status


def test_doubt_never_becomes_a_failure(facts):
    assert severity_of("firmware-properties", "native") == "fail"
    assert _status(replace(facts, firmware_properties="unknown"), "firmware-properties", "native").status == "warn"


def test_what_a_profile_does_not_need_is_said_and_passed(facts):
    bare = replace(facts, libvirt=replace(facts.libvirt, present=False))
    assert _status(bare, "libvirt-present", "none") == Check(
        "libvirt-present", "ok", "libvirt is not installed: no domain can be defined. That does not matter here: no "
        "domain of this host needs it.")
    assert _status(bare, "libvirt-present", "none", "compat").status == "fail"


def test_a_host_of_cards_needs_nothing_to_build_a_module(facts):
    bare = replace(facts, headers=replace(facts.headers, present=False), dkms=replace(facts.dkms, present=False),
                   compiler=replace(facts.compiler, present=False))
    for name in ("kernel-headers", "dkms-present", "compiler-present"):
        assert [_status(bare, name, profile).status for profile in ("x86", "compat")] == ["ok", "warn"]


@pytest.mark.parametrize(("machine", "lacking", "wanted", "profiles"), [
    ("aarch64", (), ["auto"], ("native",)),
    ("aarch64", ("iommu_driver_accel",), ["auto"], ("no-accel",)),
    ("aarch64", ("iommu_driver_accel", "acpi_nodeset"), ["auto"], ("compat",)),
    ("aarch64", ("iommu_driver_accel", "acpi_nodeset"), ["auto", "native", "compat"], ("native", "compat")),
    ("x86_64", (), ["auto"], ("x86",)),
    ("x86_64", (), [], ("none",)),
    ("aarch64", (), ["none"], ("none",)),
])
def test_profiles_that_are_meant(facts, machine, lacking, wanted, profiles):
    features = replace(facts.libvirt_features, **dict.fromkeys(lacking, False))
    found = replace(facts, kernel=replace(facts.kernel, machine=machine), libvirt_features=features)
    assert resolve_profiles(wanted, found) == profiles


def test_host_that_can_have_no_profile_is_judged_by_the_least_demanding(facts):
    bare = replace(facts, qemu_features=replace(facts.qemu_features, highmem_mmio_size=False,
                                                acpi_generic_initiator=False))
    assert resolve_profiles(["auto"], bare) == ("compat",)


def test_the_page_has_the_same_table():
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    table = {name: tuple(cells.split(" | ")) for name, cells in rows if set(cells.split(" | ")) <= {
        "fail", "warn", "skip"}}
    assert table == SEVERITY


def test_the_page_describes_each_check():
    described = re.findall(r"^### `([a-z0-9-]+)`$", PAGE.read_text(), re.MULTILINE)
    assert described == list(SEVERITY)
