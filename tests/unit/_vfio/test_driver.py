# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose driver it is, from sysfs and from one read."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.driver import (
    DriverFacts,
    implementation,
    read_driver,
)
from ansible_collections.nvgrace.passthrough.tests.unit._gpu.fake_sysfs import VARIANT, FakeHost


@pytest.mark.parametrize(("files", "facts"), [
    ({}, DriverFacts(VARIANT, "SRCNVGR")),
    ({"parameters/layout": "bar2\n", "taint": "OE\n"}, DriverFacts(VARIANT, "SRCNVGR", "bar2", True)),
    ({"taint": "\n"}, DriverFacts(VARIANT, "SRCNVGR", None, False)),
    ({"taint": "E\n"}, DriverFacts(VARIANT, "SRCNVGR", None, False)),
])
def test_facts(tmp_path: Path, files: dict[str, str], facts: DriverFacts) -> None:
    host = FakeHost(tmp_path)
    host.load(VARIANT)
    for name, text in files.items():
        host.write(f"/sys/module/{VARIANT}/{name}", text)
    assert read_driver(host, VARIANT) == facts


@pytest.mark.parametrize("name", [None, "part_of_the_kernel_image"])
def test_no_module(tmp_path: Path, name: str | None) -> None:
    assert read_driver(FakeHost(tmp_path), name) == DriverFacts(name)


OURS = DriverFacts(VARIANT, "S", "mainline", True)
THEIRS = DriverFacts(VARIANT, "S")


@pytest.mark.parametrize(("facts", "whole", "who"), [
    (DriverFacts(None), None, None),
    (DriverFacts("vfio-pci", "S"), None, "vfio-pci"), (DriverFacts("vfio-pci", "S"), False, "vfio-pci"),
    (OURS, None, "collection"), (OURS, True, "collection"), (OURS, False, "collection"),
    (THEIRS, None, "kernel"), (THEIRS, True, "kernel"), (THEIRS, False, "kernel"),
    (DriverFacts("nvgrace_gpu", "S", None, True), False, "kernel"),
    (DriverFacts("nvgrace_gpu", "S", None, True), True, "other"),
    (DriverFacts("nvgrace_gpu", "S", None, True), None, "other"),
])
def test_whose_it_is(facts: DriverFacts, whole: bool | None, who: str | None) -> None:
    assert implementation(facts, whole) == who
