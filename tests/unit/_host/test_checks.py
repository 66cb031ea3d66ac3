# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of verdicts: one change of the facts, one verdict."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.checks import run_checks
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.facts import HugepagePool
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.severity import SEVERITY

SIGNED = {"module_signature.path": "/lib/m.ko", "module_signature.signer": "Ours", "module_signature.trust": "enrolled"}
UNSIGNED = {"module_signature.path": "/lib/m.ko"}
ENFORCED = {"signatures_enforced": True}


def _changed(facts, path, value):
    head, _, rest = path.partition(".")
    return replace(facts, **{head: _changed(getattr(facts, head), rest, value) if rest else value})


def _verdict(facts, name, profiles=()):
    return next(check for check in run_checks(facts, profiles) if check.id == name)


def test_a_complete_grace_host_passes_all(facts):
    checks = run_checks(facts, ("native",))
    assert [check.id for check in checks] == list(SEVERITY)
    assert [check for check in checks if check.status != "ok"] == []
    assert [check for check in checks if check.remedy is not None] == []


@pytest.mark.parametrize(("name", "changes", "status", "words"), [
    ("architecture", {"kernel.machine": "riscv64"}, "fail", "riscv64"),
    ("iommu-present", {"iommu.present": False}, "fail", "no IOMMU"),
    ("isolated-msi", {"iommu.isolated_msi": False}, "fail", "any interrupt"),
    ("isolated-msi", {"iommu.isolated_msi": None}, "warn", "No message-signalled interrupt"),
    ("allow-unsafe-interrupts", {"vfio.allow_unsafe_interrupts": True}, "fail", "allow_unsafe_interrupts is on"),
    ("allow-unsafe-interrupts", {"vfio.iommufd_allow_unsafe_interrupts": True}, "fail",
     "iommufd.allow_unsafe_interrupts is on"),
    ("allow-unsafe-interrupts", {"kernel.cmdline": "quiet pcie_acs_override=downstream"}, "fail",
     "makes up IOMMU groups"),
    ("allow-unsafe-interrupts", {"vfio.noiommu": True}, "fail", "enable_unsafe_noiommu_mode is on"),
    ("iommufd", {"iommu.iommufd": False}, "fail", "no /dev/iommu:"),
    ("iommufd", {"iommu.iommufd": False, "iommu.cdev": False}, "fail", "no /dev/iommu and no VFIO device nodes"),
    ("vfio-pci", {"kernel.config": {"VFIO_PCI": "n"}}, "fail", "without VFIO"),
    ("vfio-pci", {"kernel.config": {"VFIO_PCI": "y"}}, "ok", "has VFIO"),
    ("vfio-pci", {"kernel.config": None}, "warn", "not readable"),
    ("page-size", {"kernel.page_size": 8192}, "fail", "8192 bytes"),
    ("page-size", {"kernel.page_size": 65536}, "ok", "pages of 64 KiB"),
    ("page-size", {"kernel.page_size": 16384}, "ok", "pages of 16 KiB"),
    ("kvm-present", {"kvm.present": False}, "fail", "/dev/kvm does not exist"),
    ("kvm-cacheable-memory", {"kvm.cacheable_pfnmap": False}, "fail", "no capability 243"),
    ("kvm-cacheable-memory", {"kvm.cacheable_pfnmap": None, "kvm.reason": "denied"}, "warn", "denied"),
    ("kvm-cacheable-memory", {"kvm.cacheable_pfnmap": False, "kernel.machine": "x86_64"}, "ok", "Only arm64"),
    ("numa-node-limit", {"numa.firmware_domains": 34}, "fail", "describes 34 NUMA nodes"),
    ("numa-node-limit", {"numa.firmware_domains": 16}, "ok", "16 of 16"),
    ("numa-node-limit", {"kernel.config": None}, "warn", "not readable"),
    ("numa-node-limit", {"numa.firmware_domains": None, "coherent_gpus": 2}, "fail", "2 coherent GPUs and the"),
    ("numa-node-limit", {"numa.firmware_domains": None, "coherent_gpus": 1}, "ok", "9 of 16"),
    ("gpu-numa-nodes", {"coherent_gpus": 2}, "warn", "8 generic-initiator nodes are there for 2 coherent GPUs"),
    ("gpu-numa-nodes", {"coherent_gpus": 0}, "ok", "no coherent GPU"),
    ("hugepages", {"hugepages": (HugepagePool(2 << 20, 8, 0),)}, "warn", "8 of 2048 KiB"),
    ("hugepages", {"hugepages": (HugepagePool(2 << 20, 8, 3),)}, "ok", "3 of 8 of 2048 KiB"),
    ("kernel-headers", {"headers.present": False}, "warn", "are missing"),
    ("dkms-present", {"dkms.present": False}, "warn", "DKMS is not installed"),
    ("compiler-present", {"compiler.present": False}, "warn", "compiler is not installed"),
    ("secure-boot", {"secure_boot": "enabled", "signatures_enforced": True}, "warn", "owner's keys are none."),
    ("secure-boot", {"signatures_enforced": True, "enrolled_keys.mok": ("Ours",), "enrolled_keys.pending": ("New",)},
     "warn", "owner's keys are Ours, and New waits for the console"),
    ("secure-boot", {"secure_boot": "enabled"}, "ok", "Secure Boot is enabled"),
    ("secure-boot", {"lockdown": "unknown", "signatures_enforced": None}, "warn", "lockdown is unknown"),
    ("module-signature", {}, "ok", "not installed for this kernel yet"),
    ("module-signature", SIGNED, "ok", "signed by 'Ours', and this kernel does not ask"),
    ("module-signature", UNSIGNED, "ok", "is not signed, and this kernel does not ask"),
    ("module-signature", {**UNSIGNED, **ENFORCED}, "fail", "is not signed."),
    ("module-signature", {**UNSIGNED, "signatures_enforced": None}, "warn", "is not signed."),
    ("module-signature", {**SIGNED, **ENFORCED}, "ok", "a key that this kernel trusts"),
    ("module-signature", {**SIGNED, **ENFORCED, "module_signature.trust": "pending"}, "fail", "waits for the console"),
    ("module-signature", {**SIGNED, **ENFORCED, "module_signature.trust": "not-enrolled"}, "fail", "does not know"),
    ("module-signature", {**SIGNED, **ENFORCED, "module_signature.trust": "unknown"}, "warn", "cannot be read"),
    ("memlock", {"memlock_limit": -1}, "ok", "not limited"),
    ("memlock", {"libvirt.present": False}, "warn", "is 64 MiB"),
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


@pytest.mark.parametrize(("installed", "loaded", "blacklisted", "functions", "words"), [
    (True, False, True, (), "No other driver"), (False, False, False, (), "No other driver"),
    (True, False, False, (), "not blacklisted: nouveau"), (True, True, True, (), "drive none now: nouveau"),
    (True, True, True, ("0000:01:00.0",), "nouveau drives 0000:01:00.0"),
])
def test_competing_drivers(facts, installed, loaded, blacklisted, functions, words):
    nouveau = replace(facts.conflicting_drivers[0], installed=installed, loaded=loaded, blacklisted=blacklisted,
                      functions=functions)
    check = _verdict(replace(facts, conflicting_drivers=(nouveau,)), "competing-drivers")
    assert words in check.why
    assert check.status == ("ok" if words == "No other driver" else "warn")


@pytest.mark.parametrize(("changes", "profiles", "status", "words"), [
    ({}, ("none",), "ok", "No domain is wanted"),
    ({}, ("native", "compat"), "ok", "native, compat"),
    ({"libvirt.version": "9.0.0"}, ("x86",), "fail", "libvirt 9.0.0 does not take"),
    ({"libvirt.version": None}, ("x86",), "ok", "x86"),
    ({"qemu_features": None}, ("compat",), "warn", "was not asked"),
    ({"qemu_features": None, "qemu.present": False}, ("compat",), "fail", "the profile compat"),
    ({"qemu_features.highmem_mmio_size": False}, ("native", "compat"), "fail", "the profile compat"),
    ({"libvirt_features.iommufd": False}, ("native",), "fail", "the profile native"),
    ({"iommu.cdev": False}, ("native",), "fail", "the profile native"),
])
def test_domain_profile(facts, changes, profiles, status, words):
    for path, value in changes.items():
        facts = _changed(facts, path, value)
    check = _verdict(facts, "domain-profile", profiles)
    assert (check.status, check.remedy is None) == (status, status == "ok")
    assert words in check.why


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
