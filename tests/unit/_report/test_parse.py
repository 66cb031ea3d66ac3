# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A record as host_report writes it becomes a value object; anything else becomes one sentence with the place."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.nvgrace.passthrough.plugins.module_utils._report import model
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.fields import AlienError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.parse import parse_record
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.record import (
    STAGES,
    Area,
    Check,
    Domain,
    Gpu,
    Link,
    Node,
    Region,
    Stage,
    Verified,
)
from ansible_collections.nvgrace.passthrough.tests.unit._report.records import (
    ADDRESS,
    GIB,
    MIB,
    NOW,
    PRODUCT,
    arguments,
    check,
    device,
    gpu,
    record,
    region,
    report,
)

DELETE = object()
FLAGS = ("read", "write", "mmap")


def changed(value: Any, *path: Any) -> Any:
    """A record with ``value`` at ``path``, or without what is there for DELETE."""
    raw = report(checks=[check("iommufd")], domain={"name": "vm1"})
    place = raw
    for name in path[:-1]:
        place = place[name]
    if value is DELETE:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return raw


def test_the_records_here_have_the_published_form() -> None:
    schema = json.loads((Path(__file__).parents[3] / "docs" / "schemas" / "report.schema.json").read_text())
    raw = report(checks=[check("iommufd", "warn", "None.", "Load it.")], domain={"name": "vm1"})
    jsonschema.validate(raw, schema)


def test_every_field_of_a_host() -> None:
    found = record("grace1", checks=[check("iommufd", "fail", "None.", "Load it."), check("kvm-present")],
                   accepted=["iommufd"], failure="Bind: held by pid 7.", after_failure="It is given back.",
                   quarantined=True, reboot_required=True,
                   domain={"name": "vm1", "warnings": ["Old."], "restart_required": True})
    assert (found.host, found.made_at, found.outcome) == ("grace1", NOW, "quarantined")
    assert (found.failure, found.after_failure) == ("Bind: held by pid 7.", "It is given back.")
    assert (found.reboot_required, found.kernel) == (True, "7.3.4+deb13-arm64")
    assert found.checks == (Check("iommufd", "fail", "None.", "Load it.", True),
                            Check("kvm-present", "ok", "It is there.", "", False))
    assert [(item.id, item.verdict) for item in found.findings] == [("iommufd", "accepted")]
    assert found.nodes == (Node(0, "0-71", 480 * GIB, (10, 80), False), Node(1, "", 0, (80, 10), True))
    assert found.domains == (Domain("vm1", "defined now", ("Old.",), True),)
    assert tuple(stage.name for stage in found.stages) == STAGES
    assert found.stages[STAGES.index("gpu_verify")] == Stage("gpu_verify", True, True, ("open it",), 2.5)
    assert found.stages[STAGES.index("gpu_bind")] == Stage("gpu_bind", False, False, (), None)


def test_facts_are_lines_for_people() -> None:
    assert record().facts == (
        ("Kernel", "7.3.4+deb13-arm64, aarch64"), ("Distribution", "debian 13"), ("Page size", "64 KiB"),
        ("IOMMU", "arm-smmu-v3, 12 groups, DMA, IOMMUFD"), ("libvirt", "11.3.0"), ("QEMU", "10.0.13"),
        ("DKMS", "3.2.2"), ("Secure Boot", "enabled, lockdown integrity"), ("Module signed by", "the operator"),
        ("Hugepages", "16 of 1 GiB"), ("Profiles", "compat"), ("Kernel arguments", "root=/dev/vda rw"),
    )


def test_a_host_that_could_not_be_read_has_no_facts() -> None:
    found = parse_record(model.build_report("grace1", {"failure": "No route."}, False, NOW.isoformat()))
    assert (found.facts, found.checks, found.gpus, found.nodes, found.kernel) == ((), (), (), (), "")
    assert (found.outcome, found.seconds) == ("failed", None)


@pytest.mark.parametrize(("place", "value", "expected"), [
    ("hugepages", [{}, {"size": 2 * MIB}, {"total": 0, "size": GIB}], None),
    ("hugepages", [{"total": 3}, {"total": 1, "size": GIB}], ("Hugepages", "3 of 0 B, 1 of 1 GiB")),
    ("iommu", {}, None),
    ("iommu", {"kind": "none", "groups": 0}, ("IOMMU", "none, 0 groups")),
    ("kernel", {"page_size": -1}, None),
    ("kernel", {"page_size": 1}, ("Page size", "1 B")),
    ("distribution", {"version_id": "13"}, ("Distribution", "13")),
])
def test_facts_that_are_told_in_part(place: str, value: Any, expected: tuple[str, str] | None) -> None:
    facts = parse_record({**report(), "host": {place: value}}).facts
    assert facts == (() if expected is None else (expected,))


def test_every_field_of_a_gpu() -> None:
    (found,) = record(devices=[device(reasons=["Read."], memory=96 * GIB)]).gpus
    assert found == Gpu(
        address=ADDRESS, product=PRODUCT, driver="nvgrace_gpu_vfio_pci", version="A1B2", override="",
        variant="nvgrace_gpu_vfio_pci", group=3, members=("0009:00:00.0 bridge pcieport",), node=0, initiators=(1,),
        link=Link(16.0, 16, 32.0, 16), bars=(16 * MIB, 64 * MIB), state="free", used_by=(),
        reset_methods=("flr", "bus"),
        verified=Verified(
            verdict="ok", layout="mainline", api="cdev", implementation="mainline", reasons=("Read.",),
            verified_at="2026-11-20T11:59:00Z", from_record=False, memory_seen=96 * GIB, memory_expected=96 * GIB,
            regions=(Region(0, "BAR0", "physical", 16 * MIB, 16 * MIB, FLAGS, (), "ok", ()),
                     Region(1, "BAR1", "absent", 0, 0, (), (), "ok", ()),
                     Region(2, "BAR2", "resmem", GIB, GIB, FLAGS, (Area(0, GIB),), "ok", ()),
                     Region(4, "BAR4", "usemem", 128 * GIB, 95 * GIB, FLAGS, (Area(0, 95 * GIB),), "ok", ()))))


@pytest.mark.parametrize(("gpus", "devices", "expected"), [
    ([gpu()], [], [(ADDRESS, PRODUCT, "nvidia", "not verified")]),
    ([], [device(verdict="in-use")], [(ADDRESS, "unknown", "nvgrace_gpu_vfio_pci", "in-use")]),
    ([gpu(product=None)], [device(driver=None)], [(ADDRESS, "10de:2342", "nvidia", "ok")]),
    ([gpu("0019:01:00.0")], [device()], [(ADDRESS, "unknown", "nvgrace_gpu_vfio_pci", "ok"),
                                         ("0019:01:00.0", PRODUCT, "nvidia", "not verified")]),
    ([], [], []),
])
def test_gpus_are_those_of_both_modules(gpus: list[Any], devices: list[Any], expected: list[Any]) -> None:
    found = record(gpus=gpus, devices=devices).gpus
    assert [(item.address, item.product, item.driver, item.verdict) for item in found] == expected


@pytest.mark.parametrize(("link", "expected"), [
    (Link(32.0, 16, 32.0, 16), "32 GT/s x16"),
    (Link(2.5, 16, 32.0, 16), "2.5 GT/s x16 of 32 GT/s x16"),
    (Link(32.0, 8, 32.0, 16), "32 GT/s x8 of 32 GT/s x16"),
])
def test_link_that_is_less_than_it_could_be(link: Link, expected: str) -> None:
    assert link.text == expected


def test_a_link_that_says_nothing() -> None:
    assert [found.link for found in record(gpus=[gpu(link={})], devices=[]).gpus] == [Link(0.0, 0, 0.0, 0)]


def test_seconds_of_a_host_are_those_of_all_stages_that_told() -> None:
    raw = report(seconds=2.5)
    raw["stages"]["gpu_kmod"]["seconds"] = 61.2349
    assert parse_record(raw).seconds == 63.735


@pytest.mark.parametrize(("text", "expected"), [
    ("2026-11-20T12:00:00Z", NOW),
    ("2026-11-20T13:00:00+01:00", NOW),
    ("2026-11-20T12:00:00.250000+00:00", datetime(2026, 11, 20, 12, 0, 0, 250000, tzinfo=timezone.utc)),
])
def test_times_are_utc(text: str, expected: datetime) -> None:
    found = parse_record({**report(), "generated_at": text}).made_at
    assert (found, found.utcoffset()) == (expected, timezone.utc.utcoffset(None))


ALIENS: list[tuple[Any, tuple[Any, ...], str]] = [
    (2, ("schema_version",), "its schema_version is 2, and this version of the collection reads 1."),
    ("1", ("schema_version",), "schema_version is not a whole number."),
    (True, ("schema_version",), "schema_version is not a whole number."),
    (DELETE, ("schema_version",),
     "it is not the record of a host, which has schema_version and inventory_hostname."),
    (None, ("inventory_hostname",),
     "it is not the record of a host, which has schema_version and inventory_hostname."),
    (" \n", ("inventory_hostname",), "inventory_hostname is empty."),
    (5, ("inventory_hostname",), "inventory_hostname is not text."),
    ("fine", ("outcome",), "outcome is 'fine', which is none of failed, quarantined, incomplete, unchecked, predicted, "
                           "verified."),
    (DELETE, ("outcome",), "outcome is missing."),
    ("now", ("generated_at",), "generated_at is 'now', which is no time of ISO 8601."),
    ("2026-11-20T12:00:00", ("generated_at",), "generated_at is '2026-11-20T12:00:00', which has no time zone."),
    ("0001-01-01T00:00:00+05:00", ("generated_at",),
     "generated_at is '0001-01-01T00:00:00+05:00', which is out of range."),
    (["No."], ("failure",), "failure is not text."),
    ("yes", ("reboot_required",), "reboot_required is not true or false."),
    (0, ("reboot_required",), "reboot_required is not true or false."),
    ([], ("host",), "host is not a dictionary."),
    ("7.3", ("host", "kernel"), "host.kernel is not a dictionary."),
    (4096.0, ("host", "kernel", "page_size"), "host.kernel.page_size is not a whole number."),
    ([7], ("host", "profiles"), "host.profiles is not a list of texts."),
    ([10, 1.5], ("host", "numa", "nodes", 0, "distances"),
     "host.numa.nodes[0].distances is not a list of whole numbers."),
    ([True], ("host", "numa", "nodes", 0, "distances"),
     "host.numa.nodes[0].distances is not a list of whole numbers."),
    ("ok", ("checks", 0), "checks[0] is not a dictionary."),
    ("good", ("checks", 0, "status"), "checks[0].status is 'good', which is none of ok, warn, fail."),
    (DELETE, ("checks", 0, "id"), "checks[0].id is missing."),
    ({}, ("checks",), "checks is not a list."),
    ([{}] * 5000, ("checks",), "checks has 5000 items, more than 4096."),
    (DELETE, ("gpus", 0, "address"), "gpus[0].address is missing."),
    (["a"], ("gpus", 0, "group_members"), "gpus[0].group_members[0] is not a dictionary."),
    ("fast", ("gpus", 0, "link", "speed"), "gpus[0].link.speed is not a number."),
    (-1.0, ("gpus", 0, "link", "speed"), "gpus[0].link.speed is out of range."),
    (DELETE, ("devices", 0, "verdict"), "devices[0].verdict is missing."),
    (-1, ("devices", 0, "memory", "seen"), "devices[0].memory.seen is out of range."),
    (1 << 65, ("devices", 0, "regions", 3, "reported"), "devices[0].regions[3].reported is out of range."),
    (DELETE, ("domains", 0, "name"), "domains[0].name is missing."),
    (float("nan"), ("stages", "gpu_verify", "seconds"), "stages.gpu_verify.seconds is out of range."),
    (float("inf"), ("stages", "gpu_verify", "seconds"), "stages.gpu_verify.seconds is out of range."),
    (10 ** 400, ("stages", "gpu_verify", "seconds"), "stages.gpu_verify.seconds is out of range."),
    (True, ("stages", "gpu_verify", "seconds"), "stages.gpu_verify.seconds is not a number."),
    (["open", None], ("stages", "gpu_verify", "actions"), "stages.gpu_verify.actions is not a list of texts."),
]


@pytest.mark.parametrize(("value", "path", "sentence"), ALIENS)
def test_alien_field_is_named(value: Any, path: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(AlienError) as caught:
        parse_record(changed(value, *path))
    assert caught.value.message == sentence


@pytest.mark.parametrize("raw", [None, [], "text", 7, True])
def test_what_is_no_dictionary_is_no_record(raw: Any) -> None:
    with pytest.raises(AlienError, match=r"^it is not a dictionary\.$"):
        parse_record(raw)


def test_sizes_below_zero_are_nothing() -> None:
    raw = report(devices=[device(regions=[region(4, "usemem", -1, -1, sparse=[{"offset": -1, "size": -1}])])])
    (found,) = parse_record(raw).gpus[0].verified.regions  # type: ignore[union-attr]
    assert (found.reported, found.actual, found.sparse) == (0, 0, (Area(0, 0),))


def test_a_region_that_says_nothing() -> None:
    raw = report()
    raw["devices"][0]["regions"] = [{"sparse": [{}]}]
    (found,) = parse_record(raw).gpus[0].verified.regions  # type: ignore[union-attr]
    assert found == Region(-1, "", "", 0, 0, (), (Area(0, 0),), "", ())


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to each value in a record."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, item in items for place in places(item, (*path, name)))]


PLACES = [place for place in places(changed(0, "reboot_required")) if place]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=5)


@settings(max_examples=400, deadline=None)
@given(path=st.sampled_from(PLACES), value=JSON)
def test_any_json_at_any_place_is_a_record_or_one_sentence(path: tuple[Any, ...], value: Any) -> None:
    try:
        parse_record(changed(value, *path))
    except AlienError as error:
        assert error.message.endswith(".")


def test_unknown_fields_are_of_a_newer_version_and_no_harm() -> None:
    raw = report()
    raw["devices"][0]["news"] = {"a": [1]}
    assert parse_record({**raw, "news": 1}) == parse_record(report())


def test_the_report_says_what_its_arguments_say_in_check_mode() -> None:
    raw = model.build_report("grace1", arguments(), True, NOW.isoformat())
    assert parse_record(raw).outcome == "predicted"
