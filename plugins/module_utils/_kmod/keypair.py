# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A signing key and its certificate: what can be said of them without a cryptographic library. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from .._host.certificates import BIT_STRING, Certificate, elements, only_element, pem_block

_RSA = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01"
_EC = b"\x2a\x86\x48\xce\x3d\x02\x01"
_CONTEXT_1 = 0xA1


@dataclass(frozen=True)
class KeyPair:
    """Paths on the host that builds: a private key in PEM, a certificate in PEM or DER."""

    key: str
    certificate: str


def key_fits(pem: bytes, certificate: Certificate) -> Optional[bool]:
    """Whether a private key belongs to a certificate; None for a kind of key that only OpenSSL can tell.

    RSA keys are compared by their modulus and exponent, keys on elliptic curves by the public point that the file may
    hold. Raises ValueError, with a reason that fits behind "it is", for what is no private key without a passphrase.
    """
    if b"BEGIN ENCRYPTED PRIVATE KEY-" in pem or b"Proc-Type: 4,ENCRYPTED" in pem:
        raise ValueError("protected by a passphrase, which DKMS has nobody to ask for at a kernel upgrade")
    try:
        return _fits(pem, certificate)
    except (ValueError, IndexError) as error:
        raise ValueError("not a private key in PEM (BEGIN PRIVATE KEY)") from error


def _fits(pem: bytes, certificate: Certificate) -> Optional[bool]:
    for label, algorithm in (("RSA PRIVATE KEY", _RSA), ("EC PRIVATE KEY", _EC)):
        block = pem_block(pem, label)
        if block is not None:
            return _same_key(algorithm, block, certificate)
    block = pem_block(pem, "PRIVATE KEY")
    if block is None:
        raise ValueError("no such block")
    _version, algorithm_and_parameters, key = elements(only_element(block))[:3]
    return _same_key(elements(algorithm_and_parameters.content)[0].content, key.content, certificate)


def _same_key(algorithm: bytes, key: bytes, certificate: Certificate) -> Optional[bool]:
    parts = elements(only_element(key)) if algorithm in (_RSA, _EC) else []
    if algorithm == _RSA:
        # A certificate of another algorithm does not parse as one of RSA, or has other numbers.
        try:
            return elements(only_element(certificate.public_key))[:2] == parts[1:3]
        except ValueError:
            return False
    points = [only_element(part.content, BIT_STRING) for part in parts[2:] if part.tag == _CONTEXT_1]
    return points[0][1:] == certificate.public_key if points else None
