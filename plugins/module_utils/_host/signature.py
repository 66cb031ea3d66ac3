# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who signed the installed VFIO module, and whether this machine trusts that key."""

from __future__ import annotations

import re
from typing import Optional

from .._core.errors import CommandError
from .._core.host import Host
from .certificates import Certificate
from .facts import EnrolledKeys, ModuleSignature
from .keyring import ENROLLED, NOT_ENROLLED, UNKNOWN, Keyring
from .modprobe import ModuleIndex, normal

MODULE = "nvgrace-gpu-vfio-pci"

_FIELD = re.compile(r"^(filename|signer|sig_key|sig_id):\s*(\S.*?)\s*$", re.MULTILINE)


def read_module_signature(host: Host, release: str, modules: ModuleIndex, keyring: Keyring) -> ModuleSignature:
    """The module that modprobe would load in this kernel; modinfo reads its signature, compressed or not."""
    if normal(MODULE) not in modules.installed:
        return ModuleSignature(MODULE, None, None, None, None)
    try:
        fields = dict(_FIELD.findall(host.run(("modinfo", "-k", release, MODULE)).stdout))
    except CommandError:
        return ModuleSignature(MODULE, None, None, None, UNKNOWN)
    path = fields.get("filename")
    if "sig_id" not in fields:
        return ModuleSignature(MODULE, path, None, None, None)
    key = fields.get("sig_key", "").replace(":", "").lower()
    signer = fields.get("signer", "")
    return ModuleSignature(MODULE, path, signer, key, _trust(signer, key, keyring))


def _trust(signer: str, key: str, keyring: Keyring) -> str:
    """By the certificate where firmware shows it. The kernel shows a key's name and id only, and a signature names its
    key by another id: keys that are built into the kernel are known by their names."""
    for certificate in (*keyring.mok, *keyring.db, *keyring.requested):
        if _is_key_of(certificate, signer, key):
            return keyring.state_of(certificate)
    if any(known.name == signer or known.name.endswith(f": {signer}") for known in keyring.kernel or ()):
        return ENROLLED
    return UNKNOWN if keyring.kernel is None else NOT_ENROLLED


def _is_key_of(certificate: Certificate, signer: str, key: str) -> bool:
    """A signature names its key by issuer and serial number, or by subject key identifier."""
    if key == certificate.key_id:
        return True
    return certificate.issuer == signer and certificate.serial.lstrip("0") == key.lstrip("0")


def enrolled_keys(keyring: Keyring) -> EnrolledKeys:
    """The names of all keys, for people."""
    def names(certificates: tuple[Certificate, ...]) -> tuple[str, ...]:
        return tuple(certificate.subject for certificate in certificates)

    kernel: Optional[tuple[str, ...]] = None
    if keyring.kernel is not None:
        kernel = tuple(known.name for known in keyring.kernel)
    return EnrolledKeys(kernel, names(keyring.mok), names(keyring.db), names(keyring.requested))
