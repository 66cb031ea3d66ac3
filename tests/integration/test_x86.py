# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""site.yml on an x86 host with two cards: no kernel module, no compiler, both cards verified and in one domain; the
next run changes nothing, and restore.yml leaves the host as it was."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulated import LAB, EmulatedHost, start

NAME = "cards"
MIB = 1 << 20
CARDS = ["0000:00:10.0", "0000:00:11.0"]
VM: dict[str, Any] = {"name": "tenant", "vcpus": 1, "memory": "256MiB", "gpus": 2}
VARIABLES: dict[str, Any] = {"nvgrace_gpus": [{"address": address} for address in CARDS], "nvgrace_vms": [VM],
                             "gpu_host_update_initramfs": "never", "gpu_preflight_accept": ["kvm-present"]}
# Of the lab's card.
REGIONS = {0: 16 * MIB, 2: 512 * MIB, 4: 32 * MIB}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedHost]:
    yield start(NAME, tmp_path_factory.mktemp("lab"), "--arch", "amd64", "--product", "h100-pcie", "--gpus", "2")
    subprocess.run([LAB, "stop", NAME], check=True)


def test_from_nothing_to_a_domain_and_back(host: EmulatedHost, tmp_path: Path) -> None:
    before = host.manifest()
    packages = host.run("dpkg-query", "--show")

    report = host.site(VARIABLES, tmp_path)
    assert report["outcome"] == "verified", report["failure"]
    assert host.drivers(*CARDS) == ["vfio-pci", "vfio-pci"]
    assert report["stages"]["gpu_kmod"]["changed"] is False
    assert host.run("dpkg-query", "--show") == packages
    traces = host.script("ls /usr/src /var/lib/dkms; lsmod")
    assert "vfio_pci" in traces and "nvgrace" not in traces
    for device in report["devices"]:
        found = {region["index"]: (region["reported"], region["actual"]) for region in device["regions"]
                 if region["name"].startswith("BAR") and region["reported"]}
        assert found == {index: (size, size) for index, size in REGIONS.items()}
        assert (device["verdict"], device["driver"]) == ("ok", "vfio-pci"), device["reasons"]
    xml = host.run("virsh", "dumpxml", "--inactive", VM["name"])
    assert "q35" in xml and xml.count("<hostdev") == 2 and xml.count("model='pcie-root-port'") >= 2
    settled = host.manifest()

    again = host.site(VARIABLES, tmp_path)
    assert not any(stage["changed"] for stage in again["stages"].values()), again["stages"]
    assert host.manifest() == settled

    host.play("playbooks/restore.yml", VARIABLES)
    assert host.manifest() == before
