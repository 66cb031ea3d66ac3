# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secure Boot, lockdown, and the certificates that a host trusts."""

from __future__ import annotations

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._host import keyring
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.certificates import parse_certificate
from ansible_collections.nvgrace.passthrough.tests.unit._host.der import (
    DKMS_CERTIFICATE,
    DKMS_KEY_ID,
    certificate,
    signature_list,
)

EFIVARS = "/sys/firmware/efi/efivars"
SECURE_BOOT = f"{EFIVARS}/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
MOK = f"{EFIVARS}/MokListRT-605dab50-e046-4300-abb6-3dd810dd8b23"
NEW = f"{EFIVARS}/MokNew-605dab50-e046-4300-abb6-3dd810dd8b23"
DB = f"{EFIVARS}/db-d719b2cb-3d3a-4596-a3bc-dad00e67656f"
ATTRIBUTES = b"\6\0\0\0"
OURS = parse_certificate(DKMS_CERTIFICATE)
LIST = signature_list(DKMS_CERTIFICATE)
# The same name, another key.
NAMESAKE = signature_list(certificate("DKMS module signing key"))
KEY_LINE = "1d7a7d1f I------     1 perm 1f030000     0     0 asymmetri {}: {}: X509.rsa 7baac1 []\n"


@pytest.mark.parametrize(("uefi", "variable", "others", "expected"), [
    (True, b"\6\0\0\0\1", False, "enabled"),
    (True, b"\6\0\0\0\0", False, "disabled"),
    (True, None, True, "disabled"),
    (True, None, False, "unknown"),
    (False, None, False, "disabled"),
])
def test_secure_boot(tree, uefi, variable, others, expected):
    if uefi:
        tree.write("/sys/firmware/efi/fw_vendor")
    if variable is not None:
        tree.write(SECURE_BOOT, variable)
    if others:
        tree.write("/sys/firmware/efi/efivars/BootOrder-x")
    assert keyring.read_secure_boot(tree.host) == expected


@pytest.mark.parametrize(("text", "expected"), [
    ("none [integrity] confidentiality\n", "integrity"), ("[none] integrity confidentiality\n", "none"),
    (None, "unknown"),
])
def test_lockdown(tree, text, expected):
    if text is not None:
        tree.write("/sys/kernel/security/lockdown", text)
    assert keyring.read_lockdown(tree.host) == expected


@pytest.mark.parametrize(("secure_boot", "lockdown", "sig_enforce", "enforced"), [
    ("disabled", "none", None, False), ("disabled", "none", False, False), ("disabled", "none", True, True),
    ("enabled", "integrity", False, True), ("enabled", "confidentiality", False, True),
    # a kernel that is not locked down by Secure Boot
    ("enabled", "none", False, False),
    # securityfs is not mounted, or the kernel has no lockdown
    ("enabled", "unknown", False, None), ("unknown", "unknown", None, None), ("disabled", "unknown", False, False),
])
def test_whether_signatures_are_enforced(secure_boot, lockdown, sig_enforce, enforced):
    assert keyring.Enforcement(secure_boot, lockdown, sig_enforce).enforced is enforced


@pytest.mark.parametrize(("text", "expected"), [("Y\n", True), ("1\n", True), ("N\n", False), (None, None)])
def test_enforcement_is_read(tree, text, expected):
    if text is not None:
        tree.write("/sys/module/module/parameters/sig_enforce", text)
    tree.write("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
    assert keyring.read_enforcement(tree.host) == keyring.Enforcement("disabled", "integrity", expected)


@pytest.mark.parametrize(("files", "state", "places"), [
    ({}, "unknown", ()),
    ({"/proc/keys": "\n"}, "not-enrolled", ()),
    ({"/proc/keys": KEY_LINE.format("DKMS module signing key", DKMS_KEY_ID)}, "enrolled", ("kernel",)),
    ({"/proc/keys": KEY_LINE.format("DKMS module signing key", "abcd")}, "not-enrolled", ()),
    ({MOK: ATTRIBUTES + LIST}, "enrolled", ("MokListRT",)),
    ({MOK: ATTRIBUTES + NAMESAKE, DB: ATTRIBUTES + NAMESAKE, NEW: ATTRIBUTES + NAMESAKE}, "not-enrolled", ()),
    ({"/sys/firmware/efi/mok-variables/MokListRT": LIST}, "enrolled", ("MokListRT",)),
    ({DB: ATTRIBUTES + LIST, "/proc/keys": "\n"}, "enrolled", ("db",)),
    ({NEW: ATTRIBUTES + LIST, "/proc/keys": "\n"}, "pending", ()),
    ({NEW: ATTRIBUTES + LIST, MOK: ATTRIBUTES + LIST}, "enrolled", ("MokListRT",)),
    ({f"{EFIVARS}/BootOrder-x": b"\7\0\0\0\1\0"}, "not-enrolled", ()),
], ids=["nothing readable", "no such key", "kernel", "namesake in the kernel", "MOK", "namesake in firmware",
        "MOK from shim's copy", "db", "pending", "enrolled again", "no MOK list"])
def test_state_of_a_certificate(tree, files, state, places):
    for path, content in files.items():
        tree.write(path, content)
    found = keyring.read_keyring(tree.host)
    assert (found.state_of(OURS), found.knows(OURS)) == (state, places)
