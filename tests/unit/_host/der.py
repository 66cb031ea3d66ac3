# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates, keys and EFI signature lists made byte by byte, and one certificate that DKMS made with openssl."""

from __future__ import annotations

import base64
import struct
import uuid
from typing import Optional

RSA = bytes.fromhex("06092a864886f70d0101010500")
EC = bytes.fromhex("06072a8648ce3d020106082a8648ce3d030107")
X509_LIST = "a5c059a1-94e4-4aa7-87b5-ab155c2bf072"
SHA256_LIST = "c1c41626-504c-4092-aca9-41f936934328"

DKMS_CERTIFICATE = base64.b64decode(
    "MIIDPDCCAiSgAwIBAgIUHt2zDK9IBq72rzA3PlR2Ilb8THIwDQYJKoZIhvcNAQELBQAwIjEgMB4GA1UEAwwXREtNUyBtb2R1bGUg"
    "c2lnbmluZyBrZXkwIBcNMjYxMTI0MjIxMTA1WhgPMjEyNjEwMzEyMjExMDVaMCIxIDAeBgNVBAMMF0RLTVMgbW9kdWxlIHNpZ25p"
    "bmcga2V5MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA0HKMqxhoMKrcBveBZXQwFnSnDTP932Savuz3Hnpl1WNkpt27"
    "gDwnC6yvcZ5Z5sVbxvTeyeSWpCyPUGmmj1ocGgEb5MiSZGvOC+1NZliVVQPayCn0Kr+FX1b7xtnka4waPHVpnnEseTcYg5t1w0c6"
    "4I0Hb2xmEq6jB6juI8HBam1Fz5bI4yO3doWI0kZU4aehL78jPlujGfpCrdqgVjq+1oDOg/ttg94ijTrqWMl1D1Am9bD6Lct6+G9o"
    "4j/lwPAXx1R9tZFXUvADmKvPgIBScVIb+AtisAU3YFDDaOYVfS9IlMtg5jrmBn8AMXbH5CuTTEoYebyEiEFANjiO7+6H0wIDAQAB"
    "o2gwZjAdBgNVHQ4EFgQU7Z5maBpUpefYHb5XalWYTqdrqsEwHwYDVR0jBBgwFoAU7Z5maBpUpefYHb5XalWYTqdrqsEwDwYDVR0T"
    "AQH/BAUwAwEB/zATBgNVHSUEDDAKBggrBgEFBQcDAzANBgkqhkiG9w0BAQsFAAOCAQEAXauVWEByW6cG0FojOs878vnzR6rc/zYj"
    "n5C0os/qoi5JGJ/+2T2sFl4wBBQtiK8/IQb1AHXhT+i/LmTzOiUsqWfeae3w0J6/q6KNK/DTpiFGitzHCyotoc6X/brWSp0Whz3g"
    "xlf1otjqBtRiBTJcR2xV3JEgSmELdaGfxR4vLpK3+MWrX/KYQkcZJBy7JQMTcFZ95bRbD+BWfEHl9kGRHmuH9f802u/9z39EmFIK"
    "8FKdMMpjFOqkpPBdSBMfh8qj0S9TFLHDi0cHB+AptgXASte2/2jHnTrEtNoRQjKxx/S5hsDycclKaRa/HC1lDTiXIf5l9cyCCFbu"
    "8topnq6sGQ==")
DKMS_SERIAL = "1eddb30caf4806aef6af30373e54762256fc4c72"
DKMS_KEY_ID = "ed9e66681a54a5e7d81dbe576a55984ea76baac1"
DKMS_SHA256 = "b6d2e4c249d128e873fa73ad1f3ab214cac875d8e022ae87c896dc41cace40a8"


def der(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def name(common: Optional[str] = None, organisation: Optional[str] = None, tag: int = 0x0C) -> bytes:
    parts = []
    for oid, text in ((b"\x55\x04\x0a", organisation), (b"\x55\x04\x03", common)):
        if text is not None:
            value = text.encode("utf-16-be" if tag == 0x1E else "utf-8")
            parts.append(der(0x31, der(0x30, der(0x06, oid), der(tag, value))))
    return der(0x30, *parts)


def rsa_public(number: int) -> bytes:
    return der(0x30, der(0x02, b"\0" + number.to_bytes(64, "big")), der(0x02, b"\1\0\1"))


def certificate(common: Optional[str] = "Test", serial: bytes = b"\x01", key_id: Optional[bytes] = b"\xab\xcd",
                subject: Optional[bytes] = None, public: Optional[bytes] = None, algorithm: bytes = RSA,
                version: bool = True) -> bytes:
    """A version 3 certificate whose issuer is its subject, with a signature of zeros."""
    who = name(common) if subject is None else subject
    basic = der(0x30, der(0x06, b"\x55\x1d\x13"), der(0x01, b"\xff"), der(0x04, der(0x30)))
    skid = der(0x30, der(0x06, b"\x55\x1d\x0e"), der(0x04, der(0x04, key_id or b"")))
    extensions = der(0xA3, der(0x30, basic, *([skid] if key_id is not None else [])))
    key = der(0x30, der(0x30, algorithm), der(0x03, b"\0" + (rsa_public(1 << 500) if public is None else public)))
    body = der(0x30, *([der(0xA0, der(0x02, b"\2"))] if version else []), der(0x02, serial), der(0x30, RSA), who,
               der(0x30), who, key, *([extensions] if version else []))
    return der(0x30, body, der(0x30, RSA), der(0x03, b"\0" + bytes(64)))


def pem(content: bytes, label: str) -> bytes:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(content).decode()}-----END {label}-----\n".encode()


def signature_list(*entries: bytes, kind: str = X509_LIST, header: bytes = b"") -> bytes:
    """All entries must have the same length, as in a list of UEFI."""
    body = b"".join(bytes(16) + entry for entry in entries)
    size = 28 + len(header) + len(body)
    return uuid.UUID(kind).bytes_le + struct.pack("<III", size, len(header), 16 + len(entries[0])) + header + body
