# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of a device has the published form, whoever of the three writers wrote last."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.journal import STATE_DIR, Journal
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.record import BindingRecord, save_record
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.record import (
    Fingerprint,
    VerificationRecord,
    save_verification,
)

ADDRESS = "0009:01:00.0"
SCHEMA = Path(__file__).parents[3] / "docs" / "schemas" / "record.schema.json"
ENTRY: dict[str, Any] = {
    "address": ADDRESS, "driver": "nvgrace_gpu_vfio_pci", "srcversion": "260EBF14", "api": "group",
    "layout": "mainline",
    "implementation": "collection", "verdict": "ok", "reasons": [], "evidence": [], "notes": [],
    "verified_at": "2026-01-01T00:00:00Z", "from_record": False,
    "memory": {"expected": 4096, "seen": 4096, "source": "expected_memory"},
    "regions": [{"index": 4, "name": "BAR4", "role": "usemem", "reported": 4096, "actual": 4096, "flags": ["read"],
                 "sparse": [{"offset": 0, "size": 4096}], "offset": 1 << 42, "bar_register": "0x000000000000000c",
                 "verdict": "ok", "reasons": [], "evidence": []}],
}


@pytest.fixture
def record(tmp_path: Path) -> dict[str, Any]:
    host = Host(str(tmp_path))
    save_record(host, BindingRecord(ADDRESS, "10de", "2342", "nvgrace_gpu_vfio_pci", "nvgrace_gpu_vfio_pci", None, None,
                                    True))
    Journal(host, ADDRESS).remember("/etc/udev/rules.d/71-nvgrace.rules")
    fingerprint = Fingerprint("boot", "10de:2342", 3, "nvgrace_gpu_vfio_pci", "260EBF14", "mainline", "auto", "auto",
                              4096, None, "read")
    save_verification(host, ADDRESS, VerificationRecord(fingerprint, ENTRY))
    loaded: dict[str, Any] = json.loads((tmp_path / STATE_DIR.lstrip("/") / f"{ADDRESS}.json").read_text())
    return loaded


def test_record_has_the_published_form(record: dict[str, Any]) -> None:
    assert sorted(record) == ["binding", "files", "verification"]
    jsonschema.validate(record, json.loads(SCHEMA.read_text()))


def test_both_schemas_describe_one_device() -> None:
    record, result = (json.loads((SCHEMA.parent / f"{name}.schema.json").read_text())["$defs"]
                      for name in ("record", "verification"))
    assert {name: record[name] for name in result} == result


def test_the_documentation_has_the_same_keys() -> None:
    text = (SCHEMA.parents[2] / "plugins" / "modules" / "region_verify.py").read_text()
    documented = yaml.safe_load(re.split(r'"""', text.partition("RETURN = ")[2])[1])["devices"]["contains"]
    published = json.loads((SCHEMA.parent / "verification.schema.json").read_text())["$defs"]
    assert list(documented) == list(published["device"]["properties"])
    assert set(documented["regions"]["contains"]) == set(published["region"]["properties"])
    for name, field in [*documented.items(), *documented["regions"]["contains"].items()]:
        place = published["device" if name in documented and field is documented[name] else "region"]["properties"]
        if "choices" in field:
            assert set(field["choices"]) == set(place[name]["enum"]) - {None}, name


def test_published_form_refuses_a_record_without_the_previous_driver(record: dict[str, Any]) -> None:
    del record["binding"]["previous_driver"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(record, json.loads(SCHEMA.read_text()))
