# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""IOMMU, VFIO parameters, hugepages, limits, NUMA and UEFI images."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._host import platform
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.facts import FirmwareImage, HugepagePool
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.kernel import read_kernel


def test_iommu_of_a_grace_host(grace):
    iommu = platform.read_iommu(grace.host, read_kernel(grace.host))
    assert (iommu.present, iommu.kind, iommu.groups, iommu.default_domain) == (True, "arm-smmu-v3", 3, "DMA")
    assert (iommu.isolated_msi, iommu.iommufd, iommu.cdev) == (True, False, False)


@pytest.mark.parametrize(("units", "kind"), [
    (["dmar0", "dmar1"], "intel"), (["ivhd0"], "amd"), (["smmu3.0x1"], "arm-smmu-v3"), (["virtio0"], "unknown"),
    ([], "none"),
])
def test_iommu_kind(tree, units, kind):
    for unit in units:
        tree.write(f"/sys/class/iommu/{unit}/x")
    iommu = platform.read_iommu(tree.host, SimpleNamespace(option=lambda name: None))
    assert (iommu.kind, iommu.present, iommu.default_domain) == (kind, bool(units), None)


@pytest.mark.parametrize(("line", "isolated"), [
    (" 25:  0  IR-PCI-MSIX-0000:00:1f.2   0-edge  ahci", True),
    (" 25:  0  IR-PCI-MSI 512000-edge  ahci", True),
    (" 25:  0  ITS-MSI 81920 Edge  virtio0", True),
    (" 25:  0  PCI-MSIX-0000:00:1f.2   0-edge  ahci", False),
    (" 25:  0  GICv2m-PCI-MSI-0000:00:01.0  0 Edge  virtio0", False),
    (" 25:  0  IO-APIC   4-edge  ttyS0", None),
])
def test_isolated_msi(tree, line, isolated):
    tree.write("/proc/interrupts", "           CPU0\n" + line + "\n")
    assert platform.read_iommu(tree.host, SimpleNamespace(option=lambda name: None)).isolated_msi is isolated


@pytest.mark.parametrize(("option", "node", "cdev"), [("y", False, True), ("n", True, True), ("n", False, False)])
def test_cdev_by_configuration_or_node(tree, option, node, cdev):
    if node:
        tree.write("/dev/vfio/devices/vfio0")
    assert platform.read_iommu(tree.host, SimpleNamespace(option=lambda name: option)).cdev is cdev


@pytest.mark.parametrize(("content", "expected"), [("Y\n", True), ("1\n", True), ("N\n", False), (None, None)])
def test_vfio_parameters(tree, content, expected):
    if content is not None:
        tree.write("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", content)
        tree.write("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", content)
        tree.write("/sys/module/iommufd/parameters/allow_unsafe_interrupts", content)
    vfio = platform.read_vfio(tree.host)
    assert (vfio.allow_unsafe_interrupts, vfio.noiommu, vfio.iommufd_allow_unsafe_interrupts) == (expected,) * 3


def test_hugepages_smallest_first(tree):
    for name, total in (("hugepages-1048576kB", "2"), ("hugepages-2048kB", "512"), ("other", "1")):
        tree.write(f"/sys/kernel/mm/hugepages/{name}/nr_hugepages", total)
        tree.write(f"/sys/kernel/mm/hugepages/{name}/free_hugepages", "1")
    assert platform.read_hugepages(tree.host) == (HugepagePool(2 << 20, 512, 1), HugepagePool(1 << 30, 2, 1))


@pytest.mark.parametrize(("text", "limit"), [
    ("Max locked memory         8388608              67108864             bytes\n", 67108864),
    ("Max cpu time x\nMax locked memory         unlimited            unlimited            bytes\n", -1),
    ("nothing", None),
])
def test_memlock(tree, text, limit):
    tree.write("/proc/self/limits", text)
    assert platform.read_memlock(tree.host) == limit


def test_numa_of_a_grace_host(grace):
    numa = platform.read_numa(grace.host)
    assert [node.id for node in numa.nodes] == list(range(9))
    assert (numa.nodes[0].cpus, numa.nodes[0].memory, numa.nodes[0].generic_initiator) == ("0-1", 4096 * 1024, False)
    assert all(node.generic_initiator and node.memory == 0 for node in numa.nodes[1:])
    assert numa.nodes[0].distances == (10, 80)


@pytest.mark.parametrize(("text", "numbers"), [("0-2,8\n", [0, 1, 2, 8]), ("5", [5]), ("\n", [])])
def test_parse_id_list(text, numbers):
    assert list(platform.parse_id_list(text)) == numbers


def _descriptor(code: str, machine: str = "aarch64", device: str = "flash", features: tuple[str, ...] = ()) -> str:
    return json.dumps({"mapping": {"device": device, "executable": {"filename": code, "format": "raw"},
                                   "nvram-template": {"filename": "/usr/share/AAVMF/AAVMF_VARS.fd", "format": "raw"}},
                       "targets": [{"architecture": machine, "machines": ["virt-*"]}], "features": list(features)})


def test_described_images_in_order_and_only_the_fitting_ones(tree):
    for name in ("A", "B", "C", "D"):
        tree.write(f"/fw/{name}.fd")
    directory = "/usr/share/qemu/firmware"
    tree.write(f"{directory}/40-a.json", _descriptor("/fw/A.fd", features=("secure-boot", "enrolled-keys")))
    tree.write(f"{directory}/50-b.json", _descriptor("/fw/B.fd", machine="x86_64"))
    tree.write(f"{directory}/55-c.json", _descriptor("/fw/C.fd", device="memory"))
    tree.write(f"{directory}/56-gone.json", _descriptor("/fw/gone.fd"))
    tree.write(f"{directory}/57-broken.json", "{")
    tree.write(f"{directory}/58-odd.json", "[]")
    tree.write(f"{directory}/59-README", _descriptor("/fw/D.fd"))
    tree.write(f"{directory}/60-d.json", _descriptor("/fw/D.fd"))
    variables = "/usr/share/AAVMF/AAVMF_VARS.fd"
    assert platform.read_firmware(tree.host, "aarch64").images == (
        FirmwareImage("/fw/A.fd", variables, True, "raw"), FirmwareImage("/fw/D.fd", variables, False, "raw"))


def test_known_images_where_nothing_is_described(tree):
    tree.write("/usr/share/AAVMF/AAVMF_CODE.fd")
    tree.write("/usr/share/AAVMF/AAVMF_VARS.fd")
    firmware = platform.read_firmware(tree.host, "aarch64")
    assert [image.path for image in firmware.images] == ["/usr/share/AAVMF/AAVMF_CODE.fd"]
    assert platform.read_firmware(tree.host, "riscv64").images == ()
