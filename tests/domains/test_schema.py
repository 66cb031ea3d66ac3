# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Any description in range gives XML that the schema of its libvirt accepts and that keeps our own rules."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from libvirt_root import LibvirtRoot
from lxml import etree

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.invariants import check_xml
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.planner import plan_domain
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.domain_render import read_template, render
from ansible_collections.nvgrace.passthrough.tests.unit._domain.random_vms import CASES_IN_RANGE, Case

# The libvirts whose schema has everything that a profile uses
SUITES = {"compat": ("trixie", "forky"), "no-accel": ("forky",), "native": ("forky",),
          "x86": ("bookworm", "trixie", "forky")}


@pytest.fixture(scope="session")
def schemas(roots: dict[str, LibvirtRoot]) -> dict[str, Any]:
    return {suite: etree.RelaxNG(etree.parse(str(root.schema))) for suite, root in roots.items()}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=CASES_IN_RANGE)
def test_any_description_in_range_validates(schemas: dict[str, Any], case: Case) -> None:
    try:
        plan = plan_domain(**case)
    except PassthroughError as error:
        # the only limit that these ranges can reach
        assert "QEMU's virt machine goes up to 16 TiB" in error.message
        return
    xml = render(plan, read_template())
    check_xml(plan.name, xml)
    document = etree.fromstring(xml.encode())
    for suite in SUITES[plan.profile]:
        assert schemas[suite].validate(document), (suite, schemas[suite].error_log.last_error, xml)


def test_the_schema_refuses_what_it_does_not_know(schemas: dict[str, Any]) -> None:
    document = etree.fromstring(b"<domain type='kvm'><name>a</name><what/></domain>")
    assert not any(schema.validate(document) for schema in schemas.values())
