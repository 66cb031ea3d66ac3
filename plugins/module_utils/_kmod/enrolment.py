# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the kernel will load a module that a certificate has signed, and what the operator has to do. Pure."""

from __future__ import annotations

from typing import Any, Optional

from .._host.certificates import Certificate
from .._host.keyring import ENROLLED, PENDING, Enforcement, Keyring
from .facts import ModInfo
from .signing import signed_by

_CONSOLE = "it has to be enrolled at the host's console during the next boot"


def describe_signing(enforcement: Enforcement, keyring: Keyring, certificate: Optional[Certificate],
                     path: Optional[str], der: bool, needed: bool) -> dict[str, Any]:
    """The ``signing`` part of a result.

    ``path`` is the certificate's file on this host, ``der`` whether mokutil can read it. ``needed``: a module that this
    certificate has signed is, or will be, installed here.
    """
    state = keyring.state_of(certificate) if certificate else None
    due = needed and enforcement.enforced is not False and state not in (None, ENROLLED)
    return {
        "secure_boot": enforcement.secure_boot, "lockdown": enforcement.lockdown,
        "sig_enforce": enforcement.sig_enforce, "enforced": enforcement.enforced,
        "certificate": path if certificate else None,
        "certificate_subject": certificate.subject if certificate else None,
        "certificate_sha256": certificate.sha256 if certificate else None,
        "certificate_state": state,
        "certificate_found_in": list(keyring.knows(certificate)) if certificate else [],
        "enrolment_steps": _steps(path, der, state == PENDING, keyring.firmware) if due and path else [],
    }


def signature_warning(enforcement: Enforcement, keyring: Keyring, certificate: Optional[Certificate], release: str,
                      info: ModInfo) -> Optional[str]:
    """One sentence where the module of a kernel will not load, or may not."""
    if enforcement.enforced is False:
        return None
    sure = "loads only modules that a key it trusts has signed"
    start = f"This kernel {sure}" if enforcement.enforced else f"Whether this kernel {sure} cannot be read"
    if not info.signed:
        return f"{start}, and the module for {release} is not signed: name signing_key and signing_certificate."
    if signed_by(info, certificate) is False or certificate is None:
        return (f"{start}, and the module for {release} is signed by {info.signer!r}, whose certificate is not known "
                "here: check with 'mokutil --list-enrolled' that it is enrolled.")
    state = keyring.state_of(certificate)
    if state == ENROLLED:
        return None
    found = "waits for the console" if state == PENDING else f"is {state.replace('unknown', 'perhaps not enrolled')}"
    return (f"{start}, and the certificate {certificate.subject!r} that has signed the module for {release} {found}: "
            f"{_CONSOLE}, enrolment_steps has the steps.")


def _steps(path: str, der: bool, pending: bool, uefi: bool) -> list[str]:
    if not uefi:
        return [f"This host was not booted through UEFI, or its variables are not readable: {path} cannot be enrolled. "
                "Boot without module.sig_enforce=1 and lockdown=, or with a kernel that has the certificate built in."]
    readable = path if der else f"{path}.der"
    steps = [] if der else [f"Run 'openssl x509 -in {path} -outform DER -out {readable}': mokutil reads DER only."]
    if not pending:
        steps += [f"Run 'mokutil --import {readable}' as root and give it a password that you can type at the console; "
                  "it is asked for once."]
    return [*steps,
            "Reboot with the console in reach (screen, serial line or BMC): it cannot be done over ssh. MokManager "
            "comes before the boot loader and waits 10 seconds for a key.",
            "At the console press a key, choose 'Enroll MOK', 'Continue', 'Yes', type the password, choose 'Reboot'.",
            f"Check with 'mokutil --test-key {readable}', or run this again: certificate_state is then enrolled."]
