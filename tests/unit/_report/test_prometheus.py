# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The metrics as Prometheus' own parser reads them."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.fields import clean
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.fleet import Fleet, Problem
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.prometheus import FAMILIES, prometheus
from ansible_collections.nvgrace.passthrough.tests.unit._report.records import (
    ADDRESS,
    GIB,
    MIB,
    NOW,
    PRODUCT,
    check,
    device,
    fleet,
    gpu,
    record,
    region,
)

PREFIX = "nvgrace_passthrough_"
Samples = dict[tuple[tuple[str, str], ...], float]


def parsed(found: Fleet) -> dict[str, Samples]:
    """Samples by family and labels. What the textfile collector refuses fails here."""
    text = prometheus(found)
    assert text.endswith("\n") and not text.endswith("\n\n")
    families: dict[str, Samples] = {}
    for family in text_string_to_metric_families(text):
        assert family.name.startswith(PREFIX) and family.name not in families
        assert family.type == "gauge" and family.documentation.endswith(".")
        samples: Samples = {}
        for sample in family.samples:
            labels = tuple(sample.labels.items())
            assert sample.name == family.name and sample.timestamp is None
            assert sorted(labels) not in [sorted(other) for other in samples]
            samples[labels] = sample.value
        assert samples
        families[family.name[len(PREFIX):]] = samples
    return families


def labels(**names: str) -> tuple[tuple[str, str], ...]:
    return tuple(names.items())


GPU = {"host": "grace1", "address": ADDRESS}


def everything() -> Fleet:
    """A fleet with a sample of each family."""
    return fleet(
        record("grace1", reboot_required=True, accepted=["kvm"], domain={"name": "vm1", "restart_required": True},
               checks=[check("kvm", "fail"), check("iommu", "fail"), check("dkms", "warn"), check("pages"),
                       check("qemu")]),
        record("grace2", NOW - timedelta(days=2), failure="No.", seconds=None, gpus=[gpu(driver=None)], devices=[]),
        problems=[Problem("x.json", "It is not JSON.")])


EXPECTED: dict[str, Samples] = {
    "report_timestamp_seconds": {(): NOW.timestamp() + 3600},
    "report_problems": {(): 1},
    "host_outcome_info": {labels(host="grace1", outcome="verified"): 1, labels(host="grace2", outcome="failed"): 1},
    "record_timestamp_seconds": {labels(host="grace1"): NOW.timestamp(),
                                 labels(host="grace2"): NOW.timestamp() - 2 * 86400},
    "host_reboot_required": {labels(host="grace1"): 1, labels(host="grace2"): 0},
    "host_checks": {labels(host=host, status=status): count for host, counts in
                    (("grace1", (2, 1, 1, 1)), ("grace2", (0, 0, 0, 0)))
                    for status, count in zip(("ok", "warn", "accepted", "fail"), counts)},
    "gpu_info": {
        labels(**GPU, product=PRODUCT, driver="nvgrace_gpu_vfio_pci", layout="mainline", verdict="ok"): 1,
        labels(host="grace2", address=ADDRESS, product=PRODUCT, driver="", layout="", verdict="not verified"): 1},
    "gpu_memory_seen_bytes": {labels(**GPU): 96 * GIB},
    "gpu_memory_expected_bytes": {labels(**GPU): 96 * GIB},
    "region_reported_bytes": {labels(**GPU, region="BAR0", role="physical"): 16 * MIB,
                              labels(**GPU, region="BAR2", role="resmem"): GIB,
                              labels(**GPU, region="BAR4", role="usemem"): 128 * GIB},
    "region_actual_bytes": {labels(**GPU, region="BAR0", role="physical"): 16 * MIB,
                            labels(**GPU, region="BAR2", role="resmem"): GIB,
                            labels(**GPU, region="BAR4", role="usemem"): 95 * GIB},
    "stage_seconds": {labels(host="grace1", stage="gpu_verify"): 2.5},
    "gpu_outliers": {labels(host="grace1"): 0, labels(host="grace2"): 0},
    "domain_restart_required": {labels(host="grace1", domain="vm1"): 1},
}


@pytest.mark.parametrize("family", EXPECTED)
def test_family(family: str) -> None:
    assert parsed(everything())[family] == EXPECTED[family]


def test_every_family_is_in_the_table_above() -> None:
    assert list(parsed(everything())) == [family.name for family in FAMILIES] == list(EXPECTED)


def test_outliers_are_counted_by_host() -> None:
    odd = device(memory=95 * GIB, srcversion="C3")
    found = parsed(fleet(record("odd", devices=[odd]), *(record(f"usual{number}") for number in range(3))))
    assert found["gpu_outliers"] == {labels(host="odd"): 2, **{labels(host=f"usual{number}"): 0 for number in range(3)}}


def test_without_records_only_the_report_speaks() -> None:
    assert list(parsed(fleet(expected=["grace1"]))) == ["report_timestamp_seconds", "report_problems"]


@pytest.mark.parametrize(("memory", "text"), [
    (96 * GIB, "103079215104"), (0, "0"), ((1 << 63) + 1, "9223372036854775809"),
])
def test_bytes_are_exact(memory: int, text: str) -> None:
    lines = prometheus(fleet(record(devices=[device(memory=memory)]))).splitlines()
    assert f'{PREFIX}gpu_memory_seen_bytes{{host="grace1",address="{ADDRESS}"}} {text}' in lines


@pytest.mark.parametrize(("seconds", "text"), [(0.001, "0.001"), (61.25, "61.25"), (3, "3"), (0, "0")])
def test_seconds_have_the_digits_that_were_told(seconds: float, text: str) -> None:
    lines = prometheus(fleet(record(stages={"gpu_kmod": {"elapsed": seconds}}))).splitlines()
    assert f'{PREFIX}stage_seconds{{host="grace1",stage="gpu_kmod"}} {text}' in lines


def test_two_samples_of_one_name_would_be_refused() -> None:
    """The greater one stays: a restart that is due is not hidden."""
    domains = [{"name": "vm1", "restart_required": due} for due in (False, True, False)]
    regions = [region(4, "usemem", 2 * GIB), region(4, "usemem", GIB), region(5, "usemem", GIB, name="")]
    found = parsed(fleet(record(devices=[device(regions=regions)], stages={
        "gpu_verify": {"devices": [device(regions=regions)]}, "gpu_domain": {"results": domains}})))
    assert found["domain_restart_required"] == {labels(host="grace1", domain="vm1"): 1}
    assert found["region_reported_bytes"] == {labels(**GPU, region="BAR4", role="usemem"): 2 * GIB,
                                              labels(**GPU, region="5", role="usemem"): GIB}


def test_order_is_that_of_hosts_whatever_the_order_of_files() -> None:
    records = [record(f"grace{number}") for number in (10, 9, 1)]
    assert prometheus(fleet(*records)) == prometheus(fleet(*reversed(records)))
    assert [dict(key)["host"] for key in parsed(fleet(*records))["gpu_outliers"]] == ["grace1", "grace9", "grace10"]


HOSTILE: list[Any] = ['a"} 1\nother{x="', "back\\slash", "line\nend", "\\n", "\\", '\\"', "{}", "# HELP",
                      "\u00fc\U0001f600"]


@settings(max_examples=100, deadline=None)
@given(text=st.sampled_from(HOSTILE) | st.text(min_size=1, max_size=30).filter(str.strip))
def test_any_text_is_a_label_and_nothing_else(text: str) -> None:
    found = parsed(fleet(record(text, gpus=[gpu(product=text)], domain={"name": text})))
    assert list(found["host_outcome_info"]) == [labels(host=clean(text), outcome="verified")]
    (info,) = found["gpu_info"]
    assert dict(info)["product"] == clean(text)
    assert list(found["domain_restart_required"]) == [labels(host=clean(text), domain=clean(text))]


def test_the_page_has_every_family_with_its_meaning() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "fleet.md").read_text()
    table = page.split("The metrics, all of them gauges")[1].split("\n\n")[1]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.M)
    assert rows == [(family.name, family.help) for family in FAMILIES]
