# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The text that operators read: sizes, the table of regions, the BAR map, the whole report of a host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._report import model, text

GIB = 1 << 30

USEMEM = {"index": 4, "name": "BAR4", "role": "usemem", "reported": 2 * GIB, "actual": 3 * GIB // 2,
          "flags": ["read", "write", "mmap"], "verdict": "ok"}
RESMEM = {"index": 2, "name": "BAR2", "role": "resmem", "reported": GIB, "actual": GIB, "flags": ["read"],
          "verdict": "ok"}
CONFIG = {"index": 7, "name": "CONFIG", "role": "config", "reported": 4096, "actual": 4096, "flags": ["read"],
          "verdict": "ok"}
ABSENT = {"index": 1, "name": "BAR1", "role": "absent", "reported": 0, "actual": 0, "flags": [], "verdict": "ok"}
DEVICE: dict[str, Any] = {"address": "0000:00:10.0", "driver": "nvgrace_gpu_vfio_pci", "layout": "mainline",
                          "verdict": "ok", "reasons": [], "from_record": False,
                          "regions": [ABSENT, RESMEM, USEMEM, CONFIG]}
GPU: dict[str, Any] = {"address": "0000:00:10.0", "product": "GH200 120GB", "iommu_group": 3, "driver": None}


@pytest.mark.parametrize(("size", "expected"), [
    (0, "0 B"), (4096, "4 KiB"), (16 << 20, "16 MiB"), (3 * GIB // 2, "1.5 GiB"), (95 * GIB, "95 GiB"),
    (279 * GIB + (1 << 29), "279.5 GiB"), (1 << 42, "4 TiB"),
])
def test_human_size(size: int, expected: str) -> None:
    assert text.human_size(size) == expected


def test_region_table_leaves_absent_regions_out() -> None:
    lines = text.region_table(DEVICE["regions"])
    assert lines[0].split() == ["index", "region", "role", "reported", "actual", "flags", "verdict"]
    assert [line.split()[1] for line in lines[2:]] == ["BAR2", "BAR4", "CONFIG"]


def test_region_table_without_regions_says_so() -> None:
    assert text.region_table([]) == ["no regions were read"]


def test_bar_map_is_drawn_to_scale_and_names_the_hole() -> None:
    resmem, usemem = text.bar_map(DEVICE["regions"])
    assert resmem.count("#") == 48 and "hole" not in resmem
    assert usemem.count("#") == 36 and usemem.count(".") >= 12
    assert "1.5 GiB of 2 GiB, hole 512 MiB  usemem" in usemem


@pytest.mark.parametrize(("actual", "filled"), [(1, 1), (2 * GIB - 1, 47), (2 * GIB, 48), (0, 0)])
def test_bar_map_never_hides_memory_or_hole(actual: int, filled: int) -> None:
    (line,) = text.bar_map([{**USEMEM, "actual": actual}])
    assert line.split("|")[1].count("#") == filled


def test_gpu_that_was_not_verified_is_said_to_be_so() -> None:
    assert text.gpu_lines(GPU, {})[-1].strip() == "not verified"


def test_gpu_from_record_is_told_apart() -> None:
    assert "from the record of this boot" in text.gpu_lines(GPU, {**DEVICE, "from_record": True})[1]


@pytest.mark.parametrize(("failure", "verdicts", "check_mode", "expected"), [
    ("Bind: refused", ["ok"], False, "failed"),
    ("", ["skipped"], True, "predicted"),
    ("", [], False, "incomplete"),
    ("", ["ok", "in-use"], False, "verified"),
    ("", ["ok", "unchecked"], False, "unchecked"),
    ("", ["ok", "fail"], False, "incomplete"),
])
def test_outcome(failure: str, verdicts: list[str], check_mode: bool, expected: str) -> None:
    devices = [{"verdict": verdict} for verdict in verdicts]
    assert model.outcome(failure, devices, check_mode) == expected
    assert model.outcome(failure, devices, check_mode, quarantined=True) == ("quarantined" if failure else expected)


def test_report_keeps_actions_of_looped_stages_and_marks_accepted_checks() -> None:
    arguments = {
        "host": {"host": {"kernel": {"release": "7.3"},
                          "checks": [{"id": "iommufd", "status": "fail", "why": "Absent.", "remedy": "None."}]}},
        "gpus": {"gpus": [GPU]},
        "accepted": ["iommufd"],
        "stages": {"gpu_verify": {"devices": [DEVICE], "changed": True, "actions": ["open 0000:00:10.0"]},
                   "gpu_domain": {"changed": True, "results": [
                       {"changed": True, "actions": ["define vm1"], "__gpu_domain_vm": {"name": "vm1"}},
                       {"failed": True, "msg": "No.", "__gpu_domain_vm": {"name": "vm2"}}]}},
    }
    report = model.build_report("grace", arguments, False, "2026-01-01T00:00:00+00:00")
    assert report["outcome"] == "verified"
    assert report["checks"][0]["accepted"] is True
    assert report["stages"]["gpu_domain"]["actions"] == ["define vm1"]
    assert [domain["state"] for domain in report["domains"]] == ["defined now", "failed: No."]
    assert report["stages"]["gpu_bind"] == {"ran": False, "changed": False, "actions": [], "seconds": None}
    lines = text.host_lines(report)
    assert lines[0] == "grace: verified"
    assert "  fail (accepted) [iommufd] Absent. None." in lines
    assert any("BAR4 |####" in line for line in lines)


def test_report_of_a_failed_host_gives_the_reason() -> None:
    report = model.build_report("grace", {"failure": "Bind: held by pid 7."}, False, "now")
    assert text.host_lines(report)[:2] == ["grace: failed", "  Bind: held by pid 7."]
    report = model.build_report("grace", {"failure": "No.", "after_failure": "It is given back. ", "quarantined": True},
                                False, "now")
    assert text.host_lines(report)[:3] == ["grace: quarantined", "  No.", "  It is given back."]


def test_what_became_of_a_failure_is_not_said_of_a_host_without_one() -> None:
    report = model.build_report("grace", {"after_failure": "It is given back.", "quarantined": True}, False, "now")
    assert (report["outcome"], report["after_failure"]) == ("incomplete", "")


@pytest.mark.parametrize("arguments", [
    {"failure": "Bind: held by pid 7.", "after_failure": "It is given back as it was before.", "quarantined": True},
    {"gpus": {"gpus": [GPU]}, "stages": {"gpu_verify": {"devices": [
        {**DEVICE, "memory": {"expected": None, "seen": 5 * GIB // 2, "source": "none"},
         "regions": [{**region, "sparse": [], "reasons": []} for region in DEVICE["regions"]]}]}}},
])
def test_report_has_the_published_form(arguments: dict[str, Any]) -> None:
    schema = json.loads((Path(__file__).parents[3] / "docs" / "schemas" / "report.schema.json").read_text())
    jsonschema.validate(model.build_report("grace", arguments, False, "2026-01-01T00:00:00+00:00"), schema)


def test_published_form_refuses_an_unknown_outcome() -> None:
    schema = json.loads((Path(__file__).parents[3] / "docs" / "schemas" / "report.schema.json").read_text())
    report = {**model.build_report("grace", {}, False, "now"), "outcome": "fine"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(report, schema)


def test_published_form_knows_every_role_of_a_region() -> None:
    """Two files describe a region, because a report may hold less of it than region_verify returns."""
    report, result = (json.loads((Path(__file__).parents[3] / "docs" / "schemas" / f"{name}.schema.json").read_text())
                      for name in ("report", "verification"))
    for one, two in ((schema["$defs"]["region"]["properties"]["role"]["enum"],
                      schema["$defs"]["device"]["properties"]["verdict"]["enum"]) for schema in (report, result)):
        assert (set(one), set(two)) == (set(result["$defs"]["region"]["properties"]["role"]["enum"]),
                                        set(result["$defs"]["device"]["properties"]["verdict"]["enum"]))


@pytest.mark.parametrize(("arguments", "stage", "expected"), [
    ({"host": {"host": {}, "elapsed": 0.5}, "gpus": {"gpus": [], "elapsed": 0.25}}, "gpu_preflight", 0.75),
    ({"host": {"host": {}}}, "gpu_preflight", None),
    ({"stages": {"gpu_kmod": {"changed": True, "elapsed": 61.2}}}, "gpu_kmod", 61.2),
    ({"stages": {"gpu_domain": {"results": [{"elapsed": 1.5}, {"elapsed": 2}, {"failed": True}]}}}, "gpu_domain", 3.5),
    ({"stages": {"gpu_bind": {"skipped": True}}}, "gpu_bind", None),
])
def test_seconds_of_a_stage_are_what_its_modules_say(arguments: dict[str, Any], stage: str,
                                                     expected: float | None) -> None:
    assert model.build_report("grace", arguments, False, "now")["stages"][stage]["seconds"] == expected
