# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt itself (managed='yes') takes the driver that gpu_info names as the best variant: with the packaged kernel
alone, and after DKMS has installed ours."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from emulated import GPU, LAB, EmulatedHost, start

NODE_DEVICE = "pci_" + GPU.replace(":", "_").replace(".", "_")


@pytest.fixture(scope="module")
def plain_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedHost]:
    """A host with one GPU, libvirt, and nothing of the collection."""
    yield start("variant", tmp_path_factory.mktemp("lab"))
    subprocess.run([LAB, "stop", "variant"], check=True)


def best_variant(host: EmulatedHost) -> dict[str, Any]:
    (gpu,) = host.module("gpu_info", {"gpus": [{"address": GPU}]})["gpus"]
    variant: dict[str, Any] = gpu["best_variant"]
    return variant


def libvirt_takes(host: EmulatedHost) -> str:
    """The driver to which libvirt moves the GPU without being told one, as it does at the start of a managed domain;
    the GPU is given back."""
    host.script(f"virsh nodedev-detach {NODE_DEVICE}")
    try:
        return host.script(f"basename $(readlink /sys/bus/pci/devices/{GPU}/driver)").strip()
    finally:
        host.script(f"virsh nodedev-reattach {NODE_DEVICE}")


def test_libvirt_chooses_what_gpu_info_names(plain_host: EmulatedHost) -> None:
    before = best_variant(plain_host)
    assert before["module"] == "vfio_pci"
    assert libvirt_takes(plain_host) == before["driver"]

    installed = plain_host.module("dkms_module", {})
    assert installed.get("changed"), installed
    after = best_variant(plain_host)
    assert after["module"] == "nvgrace_gpu_vfio_pci" and after["source"] == "modules.alias"
    assert libvirt_takes(plain_host) == after["driver"]


def test_gpu_driver_chooses_the_same(plain_host: EmulatedHost) -> None:
    named = best_variant(plain_host)
    bound = plain_host.module("gpu_driver", {"gpus": [{"address": GPU}], "persistent": False})
    try:
        assert bound["devices"][0]["after"]["driver"] == named["driver"]
        assert plain_host.script(f"basename $(readlink /sys/bus/pci/devices/{GPU}/driver)").strip() == named["driver"]
    finally:
        released = plain_host.module("gpu_driver", {"state": "released"})
    assert not released["failed"], released


def test_a_managed_domain_gets_it_too(plain_host: EmulatedHost) -> None:
    """The way with a domain: it is only started paused, because the driver is bound before the first instruction."""
    domain = f"""\
<domain type='qemu'><name>variant</name><memory unit='MiB'>256</memory><vcpu>1</vcpu>
<os><type arch='aarch64' machine='virt'>hvm</type></os><cpu mode='custom'><model>cortex-a57</model></cpu>
<devices><hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0x{GPU[:4]}' bus='0x{GPU[5:7]}'
slot='0x{GPU[8:10]}' function='0x{GPU[11]}'/></source></hostdev></devices></domain>"""
    named = best_variant(plain_host)
    plain_host.script(f"cat > /tmp/variant.xml <<'END'\n{domain}\nEND\nvirsh create /tmp/variant.xml --paused")
    try:
        assert plain_host.script(f"basename $(readlink /sys/bus/pci/devices/{GPU}/driver)").strip() == named["driver"]
    finally:
        plain_host.script("virsh destroy variant")
