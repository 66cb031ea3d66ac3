# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""site.yml in every way that people run Ansible: strategy, pipelining, become, and each Python on the hosts that this
machine has. First run, converged run, and everything given back, on simulated hosts.

Needs a mount namespace of its own and root: tests/run does that.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT / ".build")]

# where the line above leads
from hosts import Fleet, fleet  # noqa: E402
from measure import measure  # noqa: E402
from tree import LOGIN, PYTHONS, interpreters  # noqa: E402

from ansible_collections.nvgrace.passthrough.tests.unit._gpu.trees import GB200  # noqa: E402

needs_sudo = pytest.mark.skipif(shutil.which("sudo") is None, reason="sudo is not installed")
AS_USER = {"fleet_login": LOGIN, "ansible_user": LOGIN, "ansible_remote_tmp": f"/home/{LOGIN}/.ansible"}


@pytest.fixture
def hosts() -> Iterator[Fleet]:
    with fleet(2, ROOT / ".build") as made:
        yield made


def play(hosts: Fleet, playbook: str, **environment: str) -> dict[str, dict[str, int]]:
    """Runs a playbook on all hosts; the numbers of its recap by host. One that fails fails the test."""
    try:
        measure(hosts, "ansible-playbook", playbook, "-e", f"gpu_report_dir={hosts.directory}/reports", **environment)
    except SystemExit as failed:
        pytest.fail(str(failed))
    recap = (hosts.directory / "output").read_text().rpartition("PLAY RECAP")[2]
    return {line.split()[0]: {key: int(number) for key, number in re.findall(r"(\w+)=(\d+)", line)}
            for line in recap.splitlines() if "ok=" in line}


def drivers(hosts: Fleet, name: str) -> set[str]:
    """The drivers of a host's GPUs."""
    links = [f"/sys/bus/pci/devices/{address}/driver" for address in GB200]
    done = subprocess.run(["nsenter", f"--mount={hosts.namespaces[name]}", "--wd=/", "readlink", *links], check=True,
                          capture_output=True, text=True)
    return {line.rsplit("/", 1)[-1] for line in done.stdout.split()}


def there_and_back(hosts: Fleet, variables: dict[str, Any], environment: dict[str, str]) -> None:
    hosts.write_inventory(**variables)
    first = play(hosts, "site.yml", **environment)
    assert sorted(first) == sorted(hosts.namespaces)
    for name, numbers in first.items():
        assert numbers["changed"] > 0
        assert (numbers["failed"], numbers["unreachable"]) == (0, 0)
        report = json.loads((hosts.directory / "reports" / f"{name}.json").read_text())
        assert report["outcome"] == "verified"
        assert {device["verdict"] for device in report["devices"]} == {"ok"}
        assert drivers(hosts, name) == {"nvgrace_gpu_vfio_pci"}
    again = play(hosts, "site.yml", **environment)
    assert [numbers["changed"] for numbers in again.values()] == [0, 0]
    play(hosts, "playbooks/restore.yml", **environment)
    for name in hosts.namespaces:
        assert drivers(hosts, name) == {"nvidia"}


@pytest.mark.parametrize(("variables", "environment"), [
    ({}, {}),
    ({}, {"ANSIBLE_STRATEGY": "ansible.builtin.free"}),
    ({}, {"ANSIBLE_PIPELINING": "false"}),
    pytest.param(AS_USER, {}, marks=needs_sudo),
    pytest.param(AS_USER, {"ANSIBLE_PIPELINING": "false"}, marks=needs_sudo),
], ids=["linear-pipelining", "free", "without-pipelining", "become-from-user", "become-from-user-without-pipelining"])
def test_ways_of_running(hosts: Fleet, variables: dict[str, Any], environment: dict[str, str]) -> None:
    there_and_back(hosts, variables, environment)


@pytest.mark.parametrize("version", PYTHONS)
def test_pythons_of_the_hosts(hosts: Fleet, version: str) -> None:
    if version not in interpreters(hosts.directory / "tree"):
        pytest.skip(f"this machine has no Python {version}")
    interpreter = f"/usr/local/sbin/python{version}"
    there_and_back(hosts, {"ansible_python_interpreter": interpreter}, {})
    done = subprocess.run(["nsenter", f"--mount={next(iter(hosts.namespaces.values()))}", "--wd=/", interpreter, "-V"],
                          check=True, capture_output=True, text=True)
    assert done.stdout.startswith(f"Python {version}.")


@needs_sudo
def test_without_become_a_user_is_refused(hosts: Fleet) -> None:
    """What become-from-user rests on: without it, the login is no root."""
    hosts.write_inventory(**AS_USER)
    with pytest.raises(SystemExit, match="This module must run as root"):
        measure(hosts, "ansible", "all", "-m", "nvgrace.passthrough.gpu_driver", "-a", "state=released")
