# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who signed the installed module, and whether the machine trusts that key."""

from __future__ import annotations

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.certificates import Certificate, KernelKey
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.facts import EnrolledKeys
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.keyring import Keyring
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.modprobe import ModuleIndex
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.signature import (
    enrolled_keys,
    read_module_signature,
)

NONE: frozenset[str] = frozenset()
INSTALLED = ModuleIndex(NONE, NONE, frozenset({"nvgrace_gpu_vfio_pci"}), NONE)
OURS = Certificate("aa", "Ours", "Ours", "00beef", "c0ffee", b"key")
MODINFO = """filename:       /lib/modules/7.3/updates/dkms/nvgrace-gpu-vfio-pci.ko.xz
license:        GPL
sig_id:         PKCS#7
signer:         {signer}
sig_key:        {key}
sig_hashalgo:   sha256
signature:      30:82
                AA:BB
"""


def _read(tree, keyring, text=None, modules=INSTALLED):
    tree.write("/text", text or MODINFO.format(signer="Ours", key="BE:EF"))
    tree.program("modinfo", f"cat {tree.root}/text")
    return read_module_signature(tree.host, "7.3", modules, keyring)


@pytest.mark.parametrize(("keyring", "trust"), [
    (Keyring(kernel=(), mok=(OURS,), firmware=True), "enrolled"),
    (Keyring(kernel=(), requested=(OURS,), firmware=True), "pending"),
    (Keyring(kernel=(), db=(OURS,), firmware=True), "enrolled"),
    (Keyring(kernel=(KernelKey("Ours", "1"),)), "enrolled"),
    (Keyring(kernel=(KernelKey("Debian: Ours", "1"),)), "enrolled"),
    (Keyring(kernel=(KernelKey("NotOurs", "1"),)), "not-enrolled"),
    (Keyring(kernel=None), "unknown"),
])
def test_trust_in_the_signer(tree, keyring, trust):
    found = _read(tree, keyring)
    assert (found.path, found.signer, found.key, found.trust) == (
        "/lib/modules/7.3/updates/dkms/nvgrace-gpu-vfio-pci.ko.xz", "Ours", "beef", trust)
    assert tree.calls() == ["modinfo -k 7.3 nvgrace-gpu-vfio-pci"]


@pytest.mark.parametrize(("signer", "key", "trust"), [
    ("Other", "C0:FF:EE", "enrolled"), ("Other", "BE:EF", "not-enrolled"), ("Ours", "BE:AD", "not-enrolled"),
])
def test_key_is_known_by_key_id_or_by_issuer_and_serial(tree, signer, key, trust):
    keyring = Keyring(kernel=(), mok=(OURS,), firmware=True)
    assert _read(tree, keyring, MODINFO.format(signer=signer, key=key)).trust == trust


def test_module_without_signature(tree):
    found = _read(tree, Keyring(kernel=()), "filename: /lib/m.ko\nlicense: GPL\n")
    assert (found.path, found.signer, found.trust) == ("/lib/m.ko", None, None)


def test_kernel_without_the_module_asks_nobody(tree):
    found = _read(tree, Keyring(kernel=()), modules=ModuleIndex(NONE, NONE, NONE, NONE))
    assert (found.path, found.trust, tree.calls()) == (None, None, [])


def test_host_without_modinfo_is_unknown(tree):
    assert read_module_signature(tree.host, "7.3", INSTALLED, Keyring(kernel=())).trust == "unknown"


def test_names_of_all_keys():
    keyring = Keyring(kernel=(KernelKey("Built in", "1"),), mok=(OURS,), requested=(OURS,), firmware=True)
    assert enrolled_keys(keyring) == EnrolledKeys(("Built in",), ("Ours",), (), ("Ours",))
    assert enrolled_keys(Keyring(kernel=None)).kernel is None
