# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""All facts of one host together."""

from __future__ import annotations

import json

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.gather import (
    CONFLICTING_MODULES,
    conflicting_drivers,
    gather_facts,
    nvidia_functions,
)
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.modprobe import ModuleIndex

KEYS = {
    "kernel", "headers", "distribution", "bootloader", "iommu", "kvm", "vfio", "secure_boot", "lockdown", "hugepages",
    "memlock_limit", "numa", "dkms", "compiler", "depmod", "libvirt", "qemu", "libvirt_features", "qemu_features",
    "firmware", "firmware_properties", "conflicting_drivers", "coherent_gpus", "signatures_enforced",
    "module_signature", "enrolled_keys",
}


def test_facts_of_a_grace_host(grace):
    facts = json.loads(json.dumps(gather_facts(grace.host).as_dict()))
    assert set(facts) == KEYS
    assert facts["headers"] == {"path": "/lib/modules/7.3.4+deb13-arm64/build", "present": True,
                                "package": "linux-headers-7.3.4+deb13-arm64"}
    assert facts["firmware_properties"] == "present"
    assert facts["secure_boot"] == "disabled"
    assert facts["bootloader"] == {"kind": "none", "dropin_dir": None}
    assert facts["conflicting_drivers"][0] == {"module": "nouveau", "installed": True, "loaded": False,
                                               "blacklisted": True, "functions": []}
    assert (facts["coherent_gpus"], facts["signatures_enforced"]) == (0, False)
    assert facts["module_signature"] == {"module": "nvgrace-gpu-vfio-pci", "path": None, "signer": None, "key": None,
                                         "trust": None}
    assert facts["enrolled_keys"] == {"kernel": None, "mok": [], "db": [], "pending": []}


@pytest.mark.parametrize("probe", [True, False])
def test_qemu_is_asked_only_on_request(grace, probe):
    grace.program("qemu-system-aarch64", "echo QEMU emulator version 10.0.13")
    facts = gather_facts(grace.host, probe)
    assert (facts.qemu_features is not None) is probe
    assert grace.calls()[0].endswith("-qmp stdio" if probe else "--version")
    assert len(grace.calls()) == 1


def test_gathering_leaves_no_trace(grace):
    before = {path: path.read_bytes() for path in grace.root.rglob("*") if path.is_file()}
    gather_facts(grace.host)
    assert {path: path.read_bytes() for path in grace.root.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("part", "attribute"), [("loaded", "loaded"), ("installed", "installed"),
                                                 ("built_in", "installed"), ("blacklisted", "blacklisted")])
def test_each_conflicting_driver_is_listed(part, attribute):
    nothing: frozenset[str] = frozenset()
    index = {"loaded": nothing, "built_in": nothing, "installed": nothing, "blacklisted": nothing,
             part: frozenset({"nvidia"})}
    found = conflicting_drivers(ModuleIndex(**index), ())
    assert tuple(driver.module for driver in found) == CONFLICTING_MODULES
    assert [driver.module for driver in found if getattr(driver, attribute)] == ["nvidia"]


def _function(tree, address, vendor, device, class_code, driver=None, module=None):
    for name, value in (("vendor", vendor), ("device", device), ("class", class_code)):
        tree.write(f"/sys/bus/pci/devices/{address}/{name}", f"0x{value}\n")
    if driver:
        (tree.root / f"sys/bus/pci/devices/{address}/driver").symlink_to(f"../../drivers/{driver}")
        tree.write(f"/sys/bus/pci/drivers/{driver}/bind")
        if module:
            (tree.root / f"sys/bus/pci/drivers/{driver}/module").symlink_to(f"../../../../module/{module}")


def test_functions_of_gpus_and_who_drives_them(tree):
    _function(tree, "0000:01:00.0", "10de", "2342", "030200", "NovaCore", "nova_core")
    _function(tree, "0000:02:00.0", "10de", "2330", "030200", "nouveau")
    _function(tree, "0000:02:00.1", "10de", "10fa", "040300", "snd_hda_intel", "snd_hda_intel")
    _function(tree, "0000:03:00.0", "1002", "2342", "030000", "nvidia", "nvidia")
    _function(tree, "0000:04:00.0", "10de", "2941", "030200")
    functions = nvidia_functions(tree.host)
    assert [(function.address, function.coherent, function.module) for function in functions] == [
        ("0000:01:00.0", True, "nova_core"), ("0000:02:00.0", False, "nouveau"), ("0000:04:00.0", True, None)]
    nothing: frozenset[str] = frozenset()
    found = conflicting_drivers(ModuleIndex(nothing, nothing, nothing, nothing), functions)
    assert {driver.module: driver.functions for driver in found if driver.functions} == {
        "nova_core": ("0000:01:00.0",), "nouveau": ("0000:02:00.0",)}
