# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loaded, built-in, installed and blacklisted modules."""

from __future__ import annotations

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.modprobe import (
    ModuleIndex,
    parse_blacklist,
    read_modules,
)


def test_read_modules(grace):
    grace.write("/usr/lib/modprobe.d/vendor.conf", "blacklist nova-core\n")
    grace.write("/usr/lib/modprobe.d/ignored.txt", "blacklist ignored\n")
    modules = read_modules(grace.host, "7.3.4+deb13-arm64", "quiet module_blacklist=a,b-c modprobe.blacklist=d")
    assert modules.loaded == {"vfio_pci"}
    assert modules.built_in == {"arm_smmu_v3"}
    assert modules.installed == {"nouveau"}
    assert modules.blacklisted == {"nouveau", "nova_core", "a", "b_c", "d"}


@pytest.mark.parametrize(("text", "names"), [
    ("blacklist nouveau", {"nouveau"}),
    ("  blacklist\tnova-core # why\n#blacklist x\n", {"nova_core"}),
    ("options nouveau modeset=0\ninstall nouveau /bin/false\n", set()),
])
def test_parse_blacklist(text, names):
    assert parse_blacklist(text) == names


@pytest.mark.parametrize(("module", "available"), [("vfio-pci", True), ("arm_smmu_v3", True), ("nouveau", False)])
def test_available_ignores_the_spelling(module, available):
    index = ModuleIndex(frozenset({"vfio_pci"}), frozenset({"arm_smmu_v3"}), frozenset({"nouveau"}), frozenset())
    assert index.available(module) is available
