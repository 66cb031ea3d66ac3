# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Descriptions of VMs: what is accepted, what is refused, and with which words."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.request import (
    default_mac,
    parse_size,
    parse_vm,
)
from ansible_collections.nvgrace.passthrough.tests.unit._domain.descriptions import GIB, MIB, vm


@pytest.mark.parametrize(("text", "size"), [
    (0, 0), (4096, 4096), ("4096", 4096), ("4096B", 4096), ("1KiB", 1024), ("512M", 512 * MIB), ("512 MiB", 512 * MIB),
    ("4GiB", 4 * GIB), ("2T", 2048 * GIB)])
def test_sizes(text: Any, size: int) -> None:
    assert parse_size(text, "memory") == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "4GB", "1.5G", "4 gib", None, True, [1], "4G4"])
def test_sizes_that_are_refused(text: Any) -> None:
    with pytest.raises(PassthroughError, match="memory is"):
        parse_size(text, "memory")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"name": "../etc"}, "cannot be the name"),
    ({"name": "a b"}, "cannot be the name"),
    ({"name": "7"}, "cannot be the name"),
    ({"name": "x" * 64}, "cannot be the name"),
    ({"name": "a;reboot"}, "cannot be the name"),
    ({"name": None}, "cannot be the name"),
    ({"name": "deadbeef-dead-beef-dead-beefdeadbeef"}, "no UUID"),
    ({"uuid": "not-one"}, "not a UUID"),
    ({"vcpus": 0}, "vcpus of VM gpu-vm is 0"),
    ({"vcpus": 513}, "from 1 to 512"),
    ({"vcpus": None}, "vcpus of VM gpu-vm is None"),
    ({"vcpus": True}, "vcpus of VM gpu-vm is True"),
    ({"memory": "64MiB"}, "from 128 MiB"),
    ({"memory": str(GIB + 1)}, "multiple of 1 MiB"),
    ({"memory": "17TiB"}, "16 TiB"),
    ({"gpus": 0}, "give 1 to 8"),
    ({"gpus": 9}, "give 1 to 8"),
    ({"gpus": []}, "list of 1 to 8"),
    ({"gpus": None}, "list of 1 to 8"),
    ({"gpus": "0009:01:00.0"}, "list of 1 to 8"),
    ({"gpus": ["01:00.0"]}, "not a PCI address"),
    ({"gpus": ["0009:01:20.0"]}, "not a PCI address"),
    ({"gpus": ["0009:01:00.0", "0009:01:00.0"]}, "lists an address twice"),
    ({"type": "xen"}, "choose one of kvm, qemu"),
    ({"profile": "fast"}, "choose one of auto, native"),
    ({"pinning": "some"}, "choose one of auto, none"),
    ({"disks": [{"path": "relative.img"}]}, "absolute path"),
    ({"disks": [{"path": "/a\nb"}]}, "absolute path"),
    ({"disks": [{}]}, "absolute path"),
    ({"disks": [{"path": "/a", "format": "vmdk"}]}, "choose raw or qcow2"),
    ({"disks": [{"path": "/a", "target": "sda"}]}, "give vda to vdz"),
    ({"disks": [{"path": "/a", "target": "vdb"}, {"path": "/b"}]}, "same target"),
    ({"disks": [{"path": "/a"}] * 17}, "16 at most"),
    ({"networks": [{}]}, "either network or bridge"),
    ({"networks": [{"network": "a", "bridge": "b"}]}, "either network or bridge"),
    ({"networks": [{"network": "a'b"}]}, "libvirt does not accept"),
    ({"networks": [{"network": "a", "mac": "01:00:5e:00:00:01"}]}, "not a unicast"),
    ({"networks": [{"network": "a", "mac": "52:54"}]}, "not a unicast"),
    ({"networks": [{"network": "a", "mac": "52:54:00:00:00:01"}] * 2}, "same MAC"),
    ({"networks": [{"network": "a"}] * 9}, "8 at most"),
    ({"host_nodes": [-1]}, "NUMA node numbers"),
    ({"host_nodes": [0, 0]}, "lists a node twice"),
    ({"kernel": {"path": "vmlinuz"}}, "absolute path"),
    ({"kernel": {"path": "/vmlinuz", "cmdline": "a\nb"}}, "control character"),
    ({"serial_log": "log"}, "serial_log of VM gpu-vm"),
    ({"firmware": {"loader": "x"}}, "loader of VM gpu-vm"),
    ({"extra_xml": "<a>"}, "not well formed"),
    ({"extra_xml": "</devices><devices>"}, "not well formed"),
    ({"extra_xml": "<!DOCTYPE x><a/>"}, "elements only"),
    ({"extra_xml": "<?php ?>"}, "elements only"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[message for _change, message in REFUSED])
def test_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PassthroughError, match=message) as caught:
        parse_vm(vm(**change))
    assert "\n" not in caught.value.message


def test_defaults() -> None:
    request = parse_vm(vm(disks=[{"path": "/a"}, {"path": "/b"}], networks=[{"network": "default"}, {"bridge": "br0"}]))
    assert (request.virt_type, request.profile, request.pin, request.generic_initiators) == ("kvm", "auto", True, True)
    assert [disk.target for disk in request.disks] == ["vda", "vdb"]
    assert [network.mac for network in request.networks] == [default_mac("gpu-vm", 0), default_mac("gpu-vm", 1)]
    assert request.boot is None


def test_identity_depends_on_the_name_only() -> None:
    first, second = parse_vm(vm()), parse_vm(vm(vcpus=1))
    assert first.uuid == second.uuid
    assert first.uuid != parse_vm(vm(name="other")).uuid
    assert default_mac("a", 0) != default_mac("b", 0)
    assert default_mac("a", 0).startswith("52:54:00:")


def test_addresses_are_lower_case() -> None:
    assert parse_vm(vm(gpus=["000A:01:00.0"])).gpu_addresses == ("000a:01:00.0",)


def test_a_given_uuid_is_kept() -> None:
    assert parse_vm(vm(uuid="D1C0A9B2-3E44-4C1F-8D55-000000000001")).uuid == "d1c0a9b2-3e44-4c1f-8d55-000000000001"
