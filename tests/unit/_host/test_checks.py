# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of verdicts: one change of the facts, one verdict."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.checks import run_checks

IDS = [
    "architecture", "iommu-present", "isolated-msi", "allow-unsafe-interrupts", "iommufd", "page-size", "kvm-present",
    "kvm-cacheable-memory", "numa-node-limit", "kernel-headers", "dkms-present", "compiler-present", "secure-boot",
    "competing-drivers", "memlock", "libvirt-present", "qemu-present", "firmware-properties",
]


def _changed(facts, path, value):
    head, _, rest = path.partition(".")
    return replace(facts, **{head: _changed(getattr(facts, head), rest, value) if rest else value})


def _verdict(facts, name):
    return next(check for check in run_checks(facts) if check.id == name)


def test_a_complete_grace_host_passes_all(facts):
    checks = run_checks(facts)
    assert [check.id for check in checks] == IDS
    assert [check for check in checks if check.status != "ok"] == []
    assert [check for check in checks if check.remedy is not None] == []


@pytest.mark.parametrize(("name", "changes", "status", "words"), [
    ("architecture", {"kernel.machine": "riscv64"}, "fail", "riscv64"),
    ("iommu-present", {"iommu.present": False}, "fail", "no IOMMU"),
    ("isolated-msi", {"iommu.isolated_msi": False}, "fail", "any interrupt"),
    ("isolated-msi", {"iommu.isolated_msi": None}, "warn", "No message-signalled interrupt"),
    ("allow-unsafe-interrupts", {"vfio.allow_unsafe_interrupts": True}, "fail", "allow_unsafe_interrupts is on"),
    ("allow-unsafe-interrupts", {"vfio.noiommu": True}, "fail", "enable_unsafe_noiommu_mode is on"),
    ("iommufd", {"iommu.iommufd": False}, "warn", "/dev/iommu does not exist"),
    ("page-size", {"kernel.page_size": 8192}, "fail", "8192 bytes"),
    ("page-size", {"kernel.page_size": 65536}, "ok", "64 KiB"),
    ("kvm-present", {"kvm.present": False}, "fail", "/dev/kvm does not exist"),
    ("kvm-cacheable-memory", {"kvm.cacheable_pfnmap": False}, "fail", "no capability 243"),
    ("kvm-cacheable-memory", {"kvm.cacheable_pfnmap": None, "kvm.reason": "denied"}, "warn", "denied"),
    ("kvm-cacheable-memory", {"kvm.cacheable_pfnmap": False, "kernel.machine": "x86_64"}, "ok", "Only arm64"),
    ("numa-node-limit", {"numa.firmware_domains": 34}, "fail", "34 NUMA domains"),
    ("numa-node-limit", {"numa.firmware_domains": 16}, "ok", "16 of 16"),
    ("numa-node-limit", {"kernel.config": None}, "warn", "not readable"),
    ("kernel-headers", {"headers.present": False}, "warn", "are missing"),
    ("dkms-present", {"dkms.present": False}, "warn", "DKMS is not installed"),
    ("compiler-present", {"compiler.present": False}, "warn", "compiler is not installed"),
    ("secure-boot", {"secure_boot": "enabled"}, "warn", "Secure Boot is on"),
    ("secure-boot", {"lockdown": "integrity"}, "warn", "locked down (integrity)"),
    ("secure-boot", {"secure_boot": "unknown"}, "warn", "cannot be read"),
    ("memlock", {"memlock_limit": -1}, "ok", "not limited"),
    ("memlock", {"libvirt.present": False}, "warn", "64 MiB"),
    ("memlock", {"libvirt.present": False, "memlock_limit": None}, "warn", "not readable"),
    ("libvirt-present", {"libvirt.present": False}, "fail", "not installed"),
    ("libvirt-present", {"libvirt.uri_ok": False, "libvirt.reason": "no socket"}, "fail", "no socket"),
    ("qemu-present", {"qemu.present": False}, "fail", "not installed"),
    ("firmware-properties", {"firmware_properties": "absent"}, "fail", "nvidia,gpu-mem-base-pa"),
    ("firmware-properties", {"firmware_properties": "unknown"}, "warn", "cannot be read"),
    ("firmware-properties", {"firmware_properties": "absent", "kernel.machine": "x86_64"}, "ok", "Only Grace"),
])
def test_verdicts(facts, name, changes, status, words):
    for path, value in changes.items():
        facts = _changed(facts, path, value)
    check = _verdict(facts, name)
    assert check.status == status
    assert words in check.why
    assert (check.remedy is None) is (status == "ok")


@pytest.mark.parametrize(("installed", "loaded", "blacklisted", "status"), [
    (True, False, True, "ok"), (False, False, False, "ok"), (True, False, False, "warn"), (True, True, True, "warn"),
])
def test_competing_drivers(facts, installed, loaded, blacklisted, status):
    nouveau = replace(facts.conflicting_drivers[0], installed=installed, loaded=loaded, blacklisted=blacklisted)
    check = _verdict(replace(facts, conflicting_drivers=(nouveau,)), "competing-drivers")
    assert check.status == status
    assert ("nouveau" in check.why) is (status == "warn")


@pytest.mark.parametrize(("changes", "name", "words"), [
    ({"headers.present": False, "headers.package": "linux-headers-x"}, "kernel-headers", "linux-headers-x"),
    ({"headers.present": False, "headers.package": None}, "kernel-headers", "the headers of the running kernel"),
    ({"iommu.present": False, "kernel.machine": "x86_64"}, "iommu-present", "intel_iommu=on"),
    ({"qemu.present": False, "kernel.machine": "x86_64"}, "qemu-present", "qemu-system-x86"),
])
def test_remedies_name_what_to_do(facts, changes, name, words):
    for path, value in changes.items():
        facts = _changed(facts, path, value)
    assert words in (_verdict(facts, name).remedy or "")
