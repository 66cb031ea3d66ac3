# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input on a real kernel: one clear sentence, and nothing changed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from emulated import GPU, SECOND_GPU, EmulatedHost

PLAIN = [
    ("no GPU with the ids", "gpu_info", {"gpus": [{"vendor_device": "10de:2941"}]},
     r"gpus wants at least 1 of 10de:2941 and this host has 0 \(none\)"),
    ("address that does not exist", "gpu_info", {"gpus": [{"address": "0000:7f:00.0"}]},
     r"There is no PCI function 0000:7f:00\.0 on this host"),
    ("address that is no GPU", "gpu_driver", {"gpus": [{"address": "0000:00:00.0"}]},
     r"0000:00:00\.0 .*is not an NVIDIA GPU"),
    ("address that is none", "region_verify", {"gpus": [{"address": "../../etc/passwd"}]}, r"passwd"),
    ("group with a function that nobody consented to", "gpu_driver", {"gpus": [{"address": GPU}]},
     rf"IOMMU group \d+ of {re.escape(GPU)} also has {re.escape(SECOND_GPU)}.*nobody consented to"),
    ("unknown option", "gpu_driver", {"gpus": [{"address": GPU}], "drivr": "vfio-pci"},
     r"Unsupported parameters.*drivr"),
    ("driver that is not installed", "gpu_driver", {"gpus": [{"address": GPU}, {"address": SECOND_GPU}],
                                                    "driver": "no_such_driver"}, r"no_such_driver"),
    ("kernel argument with a blank", "host_config", {"kernel_arguments": ["quiet splash"]}, r"quiet splash"),
    ("blacklist entry with a line feed", "host_config", {"modprobe_blacklist": ["nouveau\ninstall x /bin/sh"]},
     r"nouveau"),
]


@pytest.fixture(scope="module")
def manifest_before(shared_group_host: EmulatedHost) -> dict[str, Any]:
    return shared_group_host.manifest()


@pytest.mark.parametrize(("module", "arguments", "message"), [row[1:] for row in PLAIN], ids=[row[0] for row in PLAIN])
def test_bad_input(shared_group_host: EmulatedHost, manifest_before: dict[str, Any], module: str,
                   arguments: dict[str, Any], message: str) -> None:
    assert re.search(message, shared_group_host.refusal(module, arguments))


def test_not_root(shared_group_host: EmulatedHost, manifest_before: dict[str, Any]) -> None:
    arguments = {"gpus": [{"address": GPU}]}
    message = shared_group_host.refusal("gpu_driver", arguments, "--become", "--become-user", "nobody")
    assert "must run as root" in message


def test_kernel_headers_missing(shared_group_host: EmulatedHost, manifest_before: dict[str, Any]) -> None:
    shared_group_host.script("mv /lib/modules/$(uname -r)/build /root/build-link")
    try:
        message = shared_group_host.refusal("dkms_module", {})
    finally:
        shared_group_host.script("mv /root/build-link /lib/modules/$(uname -r)/build")
    assert re.search(r"headers of kernel .* are missing.*linux-headers-", message)


def test_libvirt_missing(shared_group_host: EmulatedHost, manifest_before: dict[str, Any]) -> None:
    vm = {"name": "tenant", "vcpus": 1, "memory": "512MiB", "gpus": 1}
    gpus = shared_group_host.module("gpu_info", {"gpus": [{"address": GPU}]})["gpus"]
    shared_group_host.script("mv /usr/bin/virsh /root/virsh-away; mv /usr/sbin/libvirtd /root/libvirtd-away")
    try:
        facts = shared_group_host.module("host_info", {})["host"]
        checks = {check["id"]: check for check in facts["checks"]}
        message = shared_group_host.refusal("domain_xml", {"vm": vm, "host": facts, "gpus": gpus, "regions": []})
    finally:
        shared_group_host.script("mv /root/virsh-away /usr/bin/virsh; mv /root/libvirtd-away /usr/sbin/libvirtd")
    assert checks["libvirt-present"]["status"] == "fail" and checks["libvirt-present"]["remedy"]
    assert re.search(r"libvirt|virsh", message)


def test_nothing_was_changed(shared_group_host: EmulatedHost, manifest_before: dict[str, Any]) -> None:
    assert shared_group_host.manifest() == manifest_before


def test_build_failure_shows_the_tail_of_the_log(shared_group_host: EmulatedHost, tmp_path: Path) -> None:
    source = tmp_path
    (source / "dkms.conf").write_text('PACKAGE_NAME="nvgrace-gpu-vfio-pci"\nPACKAGE_VERSION="0.0.1"\n'
                                      'BUILT_MODULE_NAME[0]="nvgrace-gpu-vfio-pci"\n'
                                      'DEST_MODULE_LOCATION[0]="/updates/dkms"\nAUTOINSTALL="yes"\n'
                                      'MAKE[0]="make -C ${kernel_source_dir} M=${dkms_tree}/${PACKAGE_NAME}/'
                                      '${PACKAGE_VERSION}/build"\n')
    (source / "Kbuild").write_text("obj-m := nvgrace-gpu-vfio-pci.o\n")
    (source / "nvgrace-gpu-vfio-pci.c").write_text("#error this source is broken on purpose\n")
    result = shared_group_host.module("dkms_module", {"source": str(source)})
    assert result["failed"] and "broken on purpose" in str(result["build_log_tail"])
    assert "make.log" in result["msg"]


def test_gpu_held_by_a_process(shared_group_host: EmulatedHost) -> None:
    """Both functions go to vfio-pci; a process opens the group; neither giving back nor verifying touches it."""
    gpus = [{"address": GPU}, {"address": SECOND_GPU}]
    bound = shared_group_host.module("gpu_driver", {"gpus": gpus, "driver": "vfio-pci", "persistent": False})
    assert bound.get("changed"), bound
    holder = shared_group_host.script(
        "group=$(basename $(readlink /sys/bus/pci/devices/" + GPU + "/iommu_group))\n"
        "setsid sleep 600 <>/dev/vfio/$group >/dev/null 2>&1 &\necho $!").strip()
    try:
        message = shared_group_host.refusal("gpu_driver", {"state": "released"})
        assert f"pid {holder}" in message or holder in message
        verified = shared_group_host.module("region_verify", {"gpus": gpus})
        assert not verified["changed"]
        assert {device["verdict"] for device in verified["devices"]} == {"in-use"}
        assert all(holder in " ".join(device["reasons"]) for device in verified["devices"])
    finally:
        shared_group_host.script(f"kill {holder}; while kill -0 {holder} 2>/dev/null; do sleep 0.1; done")
    released = shared_group_host.module("gpu_driver", {"state": "released"})
    assert released.get("changed") and not released.get("failed"), released


def test_iommu_off(host_without_iommu: EmulatedHost) -> None:
    message = host_without_iommu.refusal("gpu_driver", {"gpus": [{"address": GPU}]})
    assert re.search(r"no IOMMU", message)
    checks = {check["id"]: check for check in host_without_iommu.module("host_info", {})["host"]["checks"]}
    assert checks["iommu-present"]["status"] == "fail" and checks["iommu-present"]["remedy"]
