# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Any description in range renders XML that keeps all rules; any other gives one sentence."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.invariants import check_plan, check_xml
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.model import DomainPlan
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.planner import plan_domain
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.domain_render import read_template, render
from ansible_collections.nvgrace.passthrough.tests.unit._domain.descriptions import blackwell_gpus, grace_host, vm
from ansible_collections.nvgrace.passthrough.tests.unit._domain.random_vms import CASES_IN_RANGE, Case

ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(-5, 10**15), st.text(max_size=8),
                     st.lists(st.integers(-2, 5), max_size=3))


@settings(max_examples=60, deadline=None)
@given(case=CASES_IN_RANGE)
def test_in_range(case: Case) -> None:
    try:
        plan = plan_domain(**case)
    except PassthroughError as error:
        # the only limit that these ranges can reach
        assert "QEMU's virt machine goes up to 16 TiB" in error.message
        return
    check_plan(plan)
    root = check_xml(plan.name, render(plan, read_template()))
    check_memory(plan, case)
    assert [item.get("file") or item.get("dev") for item in root.iterfind("devices/disk/source")] == [
        disk["path"] for disk in case["vm"]["disks"]]
    cpus = [cpu for _vcpu, cpu in plan.pinning.vcpus]
    assert len(set(cpus)) == len(cpus) and len(cpus) in (0, plan.vcpus)


def check_memory(plan: DomainPlan, case: Case) -> None:
    assert sum(cell.memory for cell in plan.cells) == plan.memory
    if plan.arch == "x86_64":
        assert plan.mmio_window is None
    else:
        assert plan.mmio_window is not None
        assert plan.mmio_window >= 2 * case["gpus"][0]["expected_memory"] * len(plan.hostdevs)


@settings(max_examples=150, deadline=None)
@given(key=st.sampled_from(["name", "uuid", "vcpus", "memory", "gpus", "type", "profile", "hugepages", "pinning",
                            "host_nodes", "serial_log", "extra_xml"]), value=ANYTHING)
def test_out_of_range_gives_one_sentence(key: str, value: Any) -> None:
    try:
        plan = plan_domain(vm(**{key: value}), grace_host(2, 2), blackwell_gpus("2941", 4), [])
        check_xml(plan.name, render(plan, read_template()))
    except PassthroughError as error:
        assert "\n" not in error.message and error.message.endswith(".")
