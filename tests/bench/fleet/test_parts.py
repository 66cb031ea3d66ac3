# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of site.yml and parts of a fleet: runs with tags, and hosts that do not answer.

Needs a mount namespace of its own and root: tests/run does that.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT / ".build")]

# where the line above leads
from hosts import Fleet, fleet, on_host, record  # noqa: E402
from measure import measure, measure_site  # noqa: E402

# where the line above that leads, too
from ansible_collections.nvgrace.passthrough.tests.unit._gpu.trees import GB200  # noqa: E402

MARK = "/run/drained"


def hooks(hosts: Fleet) -> tuple[str, ...]:
    """Options with a drain and an undrain that put a mark on the host and take it away."""
    for name, state in (("drain", "touch"), ("undrain", "absent")):
        (hosts.directory / f"{name}.yml").write_text(json.dumps([{
            "name": name, "ansible.builtin.file": {"path": MARK, "state": state, "mode": "0600"}}]))
    return tuple(word for name in ("drain", "undrain")
                 for word in ("-e", f"nvgrace_{name}_tasks={hosts.directory}/{name}.yml"))


def marked(hosts: Fleet) -> bool:
    return MARK in on_host(hosts, "find", "/run", "-maxdepth", "1").split()


def drivers(hosts: Fleet) -> dict[str, str]:
    return {address: on_host(hosts, "readlink", "-f", f"/sys/bus/pci/devices/{address}/driver") for address in GB200}


def test_a_part_that_fails_is_given_back_and_reported() -> None:
    """The GPUs are bound, and then are not as large as they are said to be."""
    with fleet(1, ROOT / ".build") as host:
        before = drivers(host)
        gpus = [{"address": address, "expected_memory": 1 << 30} for address in GB200]
        with pytest.raises(SystemExit):
            measure_site(host, "--tags", "bind,verify", "-e", json.dumps({"nvgrace_gpus": gpus}))
        found = record(host)
        assert found["outcome"] == "quarantined", found["failure"]
        assert found["failure"].startswith("Verify the regions: "), found["failure"]
        assert "given back as it was before" in found["after_failure"]
        assert drivers(host) == before


def test_parts_of_a_host_one_after_the_other() -> None:
    with fleet(1, ROOT / ".build") as host:
        for part in ("host", "kmod", "bind", "verify", "domain"):
            measure_site(host, "--tags", part)
            assert record(host)["failure"] == "", part
        assert record(host)["outcome"] == "verified"
        assert measure_site(host, "--tags", "domain").changed == 0


def test_a_role_alone_builds_because_it_does_not_know_the_gpus() -> None:
    """And one that knows that no GPU needs the module does not. The host has no compiler, which tells them apart."""
    role = {"ansible.builtin.include_role": {"name": "nvgrace.passthrough.gpu_kmod"}}
    play = {"hosts": "all", "gather_facts": False, "become": True, "tasks": [
        {"block": [role, {"ansible.builtin.fail": {"msg": "It has built nothing, and has not failed."}}],
         "rescue": [{"ansible.builtin.assert": {"that": ["'install dkms' in ansible_failed_result.msg"]}}]},
        {**role, "vars": {"gpu_preflight_gpu_info": {"gpus": [{"device": "2331", "coherent": False}]}}},
        {"ansible.builtin.assert": {"that": [
            "gpu_kmod_result is not changed", "gpu_kmod_result.kernels[0].state == 'absent'"]}}]}
    with fleet(1, ROOT / ".build") as host:
        playbook = host.directory / "role.json"
        playbook.write_text(json.dumps([play]))
        assert measure(host, "ansible-playbook", str(playbook), "-e", json.dumps({
            "gpu_kmod_prefer_in_tree": False, "gpu_kmod_install_packages": False})).changed == 0


def test_drain_and_undrain_are_parts_of_their_own() -> None:
    with fleet(1, ROOT / ".build") as host:
        options = hooks(host)
        measure_site(host, *options, "--tags", "drain")
        assert marked(host)
        measure_site(host, *options, "--tags", "undrain")
        assert not marked(host)


def test_a_run_that_was_cut_off_after_the_binding_is_brought_to_its_end() -> None:
    """Its GPUs have the driver, so it would be taken for a host in service, which is neither drained nor undrained."""
    with fleet(1, ROOT / ".build") as host:
        options = hooks(host)
        measure_site(host, *options, "--tags", "drain,host,kmod,bind", "--skip-tags", "undrain")
        assert marked(host)
        measure_site(host, *options)
        assert marked(host)
        measure_site(host, *options, "-e", "nvgrace_in_service=false")
        assert not marked(host)


def test_a_lost_host_is_reported_and_counts_as_failed() -> None:
    """One of two hosts of the first batch does not answer, and none may fail: the second batch is not begun."""
    with fleet(3, ROOT / ".build") as hosts:
        lost, good, next_one = hosts.namespaces
        inventory = json.loads(hosts.inventory.read_text())
        inventory["all"]["hosts"][lost] = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
        hosts.inventory.write_text(json.dumps(inventory))
        with pytest.raises(SystemExit) as ended:
            measure_site(hosts, "-e", '{"nvgrace_serial": [2, 1]}', "-e", "nvgrace_max_fail_percentage=0")
        reports = {path.stem: json.loads(path.read_text()) for path in (hosts.directory / "reports").glob("*.json")}
        assert set(reports) == {lost, good}
        assert "The host does not answer: " in reports[lost]["failure"]
        assert (reports[lost]["outcome"], reports[lost]["after_failure"]) == ("failed", "Nothing was changed.")
        assert next_one not in str(ended.value)
