# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adapter: whether a host accepts unsigned modules, and whose signatures it trusts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from .._core.host import Host
from .certificates import (
    Certificate,
    KernelKey,
    parse_certificates,
    parse_kernel_keys,
    signature_list_certificates,
)

_EFI = "/sys/firmware/efi"
_VARIABLES = f"{_EFI}/efivars"
_SHIM = "605dab50-e046-4300-abb6-3dd810dd8b23"
_GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
_IMAGE_SECURITY = "d719b2cb-3d3a-4596-a3bc-dad00e67656f"
_ATTRIBUTES = 4
_LOCKED = ("integrity", "confidentiality")

ENROLLED = "enrolled"
PENDING = "pending"
NOT_ENROLLED = "not-enrolled"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Enforcement:
    """``secure_boot``: enabled, disabled or unknown. ``lockdown``: none, integrity, confidentiality or unknown.

    ``sig_enforce`` is the kernel's own switch, None for a kernel without module signatures.
    """

    secure_boot: str
    lockdown: str
    sig_enforce: Optional[bool]

    @property
    def enforced(self) -> Optional[bool]:
        """Whether the running kernel refuses a module without a trusted signature; None where it does not tell.

        Secure Boot alone does not: distributions lock the kernel down under it, others need not.
        """
        if self.sig_enforce or self.lockdown in _LOCKED:
            return True
        if self.lockdown == UNKNOWN and self.secure_boot != "disabled":
            return None
        return False


@dataclass(frozen=True)
class Keyring:
    """The certificates that a host knows.

    ``kernel`` are the X.509 keys in the kernel's keyrings, None where /proc/keys cannot be read. ``mok`` are the
    machine owner's (MokListRT), ``db`` the firmware's own, ``requested`` those that wait for the console (MokNew).
    ``firmware``: the variables were readable; False on a host without UEFI, too.
    """

    kernel: Optional[tuple[KernelKey, ...]]
    mok: tuple[Certificate, ...] = ()
    db: tuple[Certificate, ...] = ()
    requested: tuple[Certificate, ...] = ()
    firmware: bool = False

    def state_of(self, certificate: Certificate) -> str:
        """ENROLLED, PENDING (it waits for the console), NOT_ENROLLED, or UNKNOWN where nothing could be read.

        Firmware is compared by SHA-256; the kernel shows no more than a key's id.
        """
        if self.knows(certificate):
            return ENROLLED
        if certificate.sha256 in {known.sha256 for known in self.requested}:
            return PENDING
        return UNKNOWN if self.kernel is None and not self.firmware else NOT_ENROLLED

    def knows(self, certificate: Certificate) -> tuple[str, ...]:
        """Where the certificate is: of ``kernel``, ``MokListRT`` and ``db``."""
        places = []
        if any(key.id == certificate.kernel_id for key in self.kernel or ()):
            places.append("kernel")
        for place, certificates in (("MokListRT", self.mok), ("db", self.db)):
            if certificate.sha256 in {known.sha256 for known in certificates}:
                places.append(place)
        return tuple(places)


def read_enforcement(host: Host) -> Enforcement:
    """What the running kernel does with a module that nobody trusted has signed."""
    text = host.read_text("/sys/module/module/parameters/sig_enforce")
    return Enforcement(read_secure_boot(host), read_lockdown(host), None if text is None else text in ("Y", "1"))


def read_keyring(host: Host) -> Keyring:
    """All certificates that the kernel and the firmware trust. The kernel shows its keys to root only."""
    keys = host.read_text("/proc/keys")
    return Keyring(
        kernel=None if keys is None else parse_kernel_keys(keys),
        # shim's copy has no attributes, and is whole where the list is too long for one variable.
        mok=_certificates(host.read_bytes(f"{_EFI}/mok-variables/MokListRT") or _variable(host, "MokListRT", _SHIM)),
        db=_certificates(_variable(host, "db", _IMAGE_SECURITY)),
        requested=_certificates(_variable(host, "MokNew", _SHIM)),
        firmware=bool(host.listdir(_VARIABLES)))


def _variable(host: Host, name: str, vendor: str) -> Optional[bytes]:
    data = host.read_bytes(f"{_VARIABLES}/{name}-{vendor}")
    return None if data is None else data[_ATTRIBUTES:]


def _certificates(data: Optional[bytes]) -> tuple[Certificate, ...]:
    return parse_certificates(list(signature_list_certificates(data or b"")))


def read_secure_boot(host: Host) -> str:
    """"enabled", "disabled", or "unknown" where this is UEFI and the variable cannot be read."""
    if not host.is_dir(_EFI):
        return "disabled"
    value = _variable(host, "SecureBoot", _GLOBAL)
    if value:
        return "enabled" if value[0] == 1 else "disabled"
    # Firmware without Secure Boot has no such variable; without efivarfs nothing can be said.
    return "disabled" if host.listdir(_VARIABLES) else "unknown"


def read_lockdown(host: Host) -> str:
    """The mode in brackets of /sys/kernel/security/lockdown, "unknown" where there is no such file."""
    match = re.search(r"\[(none|integrity|confidentiality)\]", host.read_text("/sys/kernel/security/lockdown") or "")
    return match.group(1) if match else "unknown"
