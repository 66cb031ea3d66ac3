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
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.model import GIB, TIB
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.planner import plan_domain
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.domain_render import read_template, render
from ansible_collections.nvgrace.passthrough.tests.unit._domain.descriptions import (
    blackwell_gpus,
    grace_host,
    native_host,
    no_accel_host,
    vm,
)

HOSTS = (grace_host(2, 2), no_accel_host(2, 2), native_host(2, 2))
IN_RANGE = st.fixed_dictionaries({
    "vcpus": st.integers(1, 72).map(lambda half: 2 * half),
    "memory": st.integers(1, 512).map(lambda gib: f"{2 * gib}GiB"),
    "gpus": st.integers(1, 4),
    "hugepages": st.sampled_from([None, "2M", "512M"]),
    "pinning": st.sampled_from(["auto", "none"]),
    "generic_initiators": st.sampled_from(["auto", "none"]),
    "host_nodes": st.sampled_from([[], [0], [1], [0, 1], [1, 0]]),
    "disks": st.integers(0, 16).map(lambda count: [{"path": f"/img/{number}"} for number in range(count)]),
    "networks": st.integers(0, 8).map(lambda count: [{"network": "default"}] * count),
})
ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(-5, 10**15), st.text(max_size=8),
                     st.lists(st.integers(-2, 5), max_size=3))


@settings(max_examples=40, deadline=None)
@given(changes=IN_RANGE, host=st.sampled_from(HOSTS), device=st.sampled_from(["2941", "31c2"]),
       memory=st.integers(1, 8 * TIB // GIB // 10).map(lambda gib: gib * GIB))
def test_in_range(changes: dict[str, Any], host: dict[str, Any], device: str, memory: int) -> None:
    gpus = [{**gpu, "expected_memory": memory} for gpu in blackwell_gpus(device, 4)]
    try:
        plan = plan_domain(vm(**changes), host, gpus, [])
    except PassthroughError as error:
        # the only limit that these ranges can reach
        assert "QEMU's virt machine goes up to 16 TiB" in error.message
        return
    check_plan(plan)
    check_xml(plan.name, render(plan, read_template()))
    assert plan.mmio_window is not None
    assert plan.mmio_window >= 2 * memory * len(plan.hostdevs)
    cpus = [cpu for _vcpu, cpu in plan.pinning.vcpus]
    assert len(set(cpus)) == len(cpus) and len(cpus) in (0, plan.vcpus)
    assert sum(cell.memory for cell in plan.cells) == plan.memory


@settings(max_examples=150, deadline=None)
@given(key=st.sampled_from(["name", "uuid", "vcpus", "memory", "gpus", "type", "profile", "hugepages", "pinning",
                            "host_nodes", "serial_log", "extra_xml"]), value=ANYTHING)
def test_out_of_range_gives_one_sentence(key: str, value: Any) -> None:
    try:
        plan = plan_domain(vm(**{key: value}), HOSTS[0], blackwell_gpus("2941", 4), [])
        check_xml(plan.name, render(plan, read_template()))
    except PassthroughError as error:
        assert "\n" not in error.message and error.message.endswith(".")
