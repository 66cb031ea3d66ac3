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
)
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.modprobe import ModuleIndex

KEYS = {
    "kernel", "headers", "distribution", "bootloader", "iommu", "kvm", "vfio", "secure_boot", "lockdown", "hugepages",
    "memlock_limit", "numa", "dkms", "compiler", "depmod", "libvirt", "qemu", "libvirt_features", "qemu_features",
    "firmware", "firmware_properties", "conflicting_drivers",
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
                                               "blacklisted": True}


@pytest.mark.parametrize("probe", [True, False])
def test_qemu_is_asked_only_on_request(grace, probe):
    grace.program("qemu-system-aarch64", "echo QEMU emulator version 10.0.13")
    facts = gather_facts(grace.host, probe)
    assert (facts.qemu_features is not None) is probe
    assert len(grace.calls()) == (3 if probe else 1)


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
    found = conflicting_drivers(ModuleIndex(**index))
    assert tuple(driver.module for driver in found) == CONFLICTING_MODULES
    assert [driver.module for driver in found if getattr(driver, attribute)] == ["nvidia"]
