# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples of inventories: Ansible reads them, every variable is one that a role or playbook has, with a value that
its argument spec takes, and every VM is one that domain_xml takes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.planner import plan_domain
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.select import parse_requests
from ansible_collections.nvgrace.passthrough.tests.unit._domain.descriptions import (
    blackwell_gpus,
    gh200,
    grace_host,
    x86_card,
    x86_host,
)

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
INVENTORIES = {"nvl72": 18, "mixed": 8}
# What a host of each kind has, and may be asked for.
KINDS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "gb200": (grace_host(2, 2), blackwell_gpus("2941", 4)),
    "gh200": (grace_host(), [gh200()]),
    "x86": (x86_host(), [x86_card("0000:41:00"), x86_card("0000:81:00")]),
}
Hosts = dict[str, dict[str, Any]]


def read(name: str) -> tuple[Hosts, dict[str, list[str]]]:
    """The variables of each host with templates as text, and the hosts of each kind."""
    program, inventory = Path(sys.executable).parent / "ansible-inventory", EXAMPLES / "inventory" / f"{name}.yml"
    done = subprocess.run([str(program), "-i", str(inventory), "--list"], cwd=ROOT, check=True, capture_output=True,
                          text=True, env={**os.environ, "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1"})
    value = json.loads(done.stdout)
    return value["_meta"]["hostvars"], {kind: value[kind]["hosts"] for kind in KINDS if kind in value}


def options() -> dict[str, dict[str, Any]]:
    """All options of all roles."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        found.update(yaml.safe_load(path.read_text())["argument_specs"]["main"]["options"])
    return found


def strange(variables: dict[str, Any]) -> list[str]:
    """Names that look like ours and are no option of a role and no variable of a playbook."""
    playbooks = "".join(path.read_text() for path in (ROOT / "playbooks").glob("*.yml"))
    known = {*options(), *re.findall(r"\bnvgrace_\w+|\brestore_\w+", playbooks)}
    return sorted(name for name in variables if re.match(r"(gpu|nvgrace|restore)_", name) and name not in known)


def refused(variables: dict[str, Any]) -> list[str]:
    """What the argument specs say of the values that are no templates."""
    specs = options()
    fixed = {name: value for name, value in variables.items() if name in specs and "{{" not in str(value)}
    validator = ArgumentSpecValidator({name: {key: value for key, value in specs[name].items()
                                              if key in ("type", "elements", "choices", "options")} for name in fixed})
    return list(validator.validate(fixed).error_messages)


@pytest.mark.parametrize(("name", "count"), INVENTORIES.items())
def test_every_variable_is_one_that_exists(name: str, count: int) -> None:
    hosts, _kinds = read(name)
    assert len(hosts) == count
    for variables in hosts.values():
        assert variables["nvgrace_gpus"] and variables["nvgrace_vms"]
        assert strange(variables) == []
        assert refused(variables) == []


@pytest.mark.parametrize("name", INVENTORIES)
def test_every_vm_can_be_planned_and_has_gpus_that_are_listed(name: str) -> None:
    hosts, kinds = read(name)
    assert sorted(host for members in kinds.values() for host in members) == sorted(hosts)
    for kind, members in kinds.items():
        facts, gpus = KINDS[kind]
        for host in members:
            listed = [request.address for request in parse_requests(hosts[host]["nvgrace_gpus"])]
            there = [gpu for gpu in gpus if gpu["address"] in listed]
            assert len(there) == len(listed)
            taken = [address for vm in hosts[host]["nvgrace_vms"] for address in plan_gpus(vm, facts, there)]
            assert sorted(taken) == sorted(listed)


def plan_gpus(vm: dict[str, Any], facts: dict[str, Any], gpus: list[dict[str, Any]]) -> list[str]:
    """The addresses that a VM gets. Raises PassthroughError for one that cannot be."""
    plan = plan_domain(vm, facts, gpus, [])
    assert plan.name == vm["name"]
    return [gpu["address"] for gpu in gpus][:vm["gpus"]] if isinstance(vm["gpus"], int) else vm["gpus"]


def test_a_misspelt_variable_and_a_wrong_value_are_noticed() -> None:
    assert strange({"gpu_bind_drivr": 1, "gpu_bind_driver": "auto", "rack": "a01"}) == ["gpu_bind_drivr"]
    assert refused({"gpu_host_numa_balancing": "off"})
    assert refused({"gpu_host_numa_balancing": "disabled"}) == []


def test_slices_of_the_job_template_cover_the_inventory() -> None:
    (play,) = yaml.safe_load((EXAMPLES / "awx" / "job_template.yml").read_text())
    template = play["tasks"][-1]["awx.awx.job_template"]
    assert strange(template["extra_vars"]) == []
    assert "hosts_of_the_inventory / hosts_a_slice" in template["job_slice_count"]
