# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole descriptions against the XML that they gave when it was last looked at and validated with libvirt.

NVGRACE_UPDATE_GOLDEN=1 writes the files anew; read the difference before it is committed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.invariants import check_plan, check_xml
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.planner import plan_domain
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.domain_render import read_template, render
from ansible_collections.nvgrace.passthrough.tests.unit._domain.descriptions import CASES

GOLDEN = Path(__file__).resolve().parent / "golden"


@pytest.mark.parametrize("name", sorted(CASES))
def test_golden_xml(name: str) -> None:
    plan = plan_domain(**CASES[name]())
    check_plan(plan)
    xml = render(plan, read_template())
    check_xml(plan.name, xml)
    golden = GOLDEN / f"{name}.xml"
    if os.environ.get("NVGRACE_UPDATE_GOLDEN") == "1":
        golden.write_text(xml, encoding="utf-8")
    assert xml == golden.read_text(encoding="utf-8")


def test_every_golden_file_has_a_description() -> None:
    assert {path.stem for path in GOLDEN.glob("*.xml")} == set(CASES)


def test_the_table_in_the_documentation_has_every_description() -> None:
    text = (GOLDEN.parents[3] / "docs" / "domains.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    found = {row[0]: row[1:4] for row in rows if row[0] in CASES}
    for name, case in CASES.items():
        plan = plan_domain(**case())
        gpus = {hostdev.alias.split("-")[1] for hostdev in plan.hostdevs}
        window = f"{plan.mmio_window >> 40} TiB" if plan.mmio_window else "firmware's"
        assert found[name] == [plan.profile, str(len(gpus)), window]


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_same_description_gives_the_same_plan(name: str) -> None:
    assert plan_domain(**CASES[name]()) == plan_domain(**CASES[name]())
