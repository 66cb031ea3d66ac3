# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates, EFI signature lists and /proc/keys: bytes in, values out."""

from __future__ import annotations

import contextlib
import struct
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nvgrace.passthrough.plugins.module_utils._host import certificates
from ansible_collections.nvgrace.passthrough.tests.unit._host.der import (
    DKMS_CERTIFICATE,
    DKMS_KEY_ID,
    DKMS_SERIAL,
    DKMS_SHA256,
    SHA256_LIST,
    X509_LIST,
    certificate,
    der,
    name,
    pem,
    signature_list,
)

PROC_KEYS = """\
0016a8b6 I------     1 perm 1f0b0000     0     0 keyring   .machine: 1
1d7a7d1f I------     1 perm 1f030000     0     0 asymmetri Debian Secure Boot CA: 6ccece7e4c6c0d1f: X509.rsa 6c0d1f []
2e000000 I--Q---    22  12d 1f030000    -1    -1 asymmetri Canonical Ltd.: Secure Boot: 88fe: X509.id_ecdsa 88fe []
3a000000 I--Q---     1 perm 1f3f0000     0 65534 keyring   _uid.0: empty
3b000000 I------     1 perm 1f030000     0     0 blacklist bin:00
3c000000 I--Q---     1 perm 1f3f0000     0     0 user      asymmetri fake: abcd: X509.rsa: 4
"""


def test_the_certificate_that_dkms_makes() -> None:
    found = certificates.parse_certificate(DKMS_CERTIFICATE)
    assert (found.sha256, found.serial, found.key_id) == (DKMS_SHA256, DKMS_SERIAL, DKMS_KEY_ID)
    assert (found.subject, found.issuer, found.kernel_id) == ("DKMS module signing key", "DKMS module signing key",
                                                              DKMS_KEY_ID)
    assert len(found.public_key) == 270


@pytest.mark.parametrize(("der_bytes", "subject", "key_id", "kernel_id"), [
    (certificate("Ours"), "Ours", "abcd", "abcd"),
    (certificate("Ours", key_id=None, serial=b"\0\xff"), "Ours", None, "00ff"),
    (certificate("Ours", version=False), "Ours", None, "01"),
    (certificate(subject=name(organisation="ACME")), "ACME", "abcd", "abcd"),
    (certificate(subject=name("Both", "ACME")), "Both", "abcd", "abcd"),
    (certificate(subject=name("Grüße", tag=0x1E)), "Grüße", "abcd", "abcd"),
    (certificate(subject=name()), "", "abcd", "abcd"),
], ids=["plain", "no key id", "version 1", "organisation", "both", "BMP string", "empty name"])
def test_what_tells_certificates_apart(der_bytes, subject, key_id, kernel_id):
    found = certificates.parse_certificate(der_bytes)
    assert (found.subject, found.key_id, found.kernel_id) == (subject, key_id, kernel_id)


@pytest.mark.parametrize("data", [
    b"", b"\x30", b"\x30\x80", b"\x30\x85\0\0\0\0\1", b"\x30\x82\1", b"\x30\x05\0", b"\x1f\x00", b"text",
    der(0x30), der(0x30, der(0x30)), der(0x30, der(0x30, der(0x02, b"\1"))), certificate()[:-1], certificate() + b"\0",
    der(0x30, der(0x30, *[der(0x30)] * 6)),
    certificate(subject=der(0x30, der(0x31, der(0x30, der(0x06, b"\x55\x04\x03"))))),
])
def test_what_is_no_certificate_is_a_value_error(data):
    with pytest.raises(ValueError, match="not|expected|unpack"):
        certificates.parse_certificate(data)


@given(st.binary(max_size=300), st.integers(0, 800))
def test_damaged_certificates_raise_nothing_else(noise, place):
    damaged = DKMS_CERTIFICATE[:place] + noise + DKMS_CERTIFICATE[place + len(noise):]
    with contextlib.suppress(ValueError):
        certificates.parse_certificate(damaged)


def test_files_are_der_or_pem():
    assert certificates.certificate_der(DKMS_CERTIFICATE) == DKMS_CERTIFICATE
    assert certificates.certificate_der(b"text before\n" + pem(DKMS_CERTIFICATE, "CERTIFICATE")) == DKMS_CERTIFICATE
    assert certificates.pem_block(b"nothing", "CERTIFICATE") is None
    with pytest.raises(ValueError, match="bad PEM"):
        certificates.certificate_der(b"-----BEGIN CERTIFICATE-----\n???\n-----END CERTIFICATE-----\n")


ONE, TWO = certificate("One"), certificate("Two")


@pytest.mark.parametrize(("data", "expected"), [
    (b"", []),
    (signature_list(ONE), [ONE]),
    (signature_list(ONE, TWO), [ONE, TWO]),
    (signature_list(ONE, header=b"12345"), [ONE]),
    (signature_list(bytes(32), kind=SHA256_LIST) + signature_list(TWO), [TWO]),
    (signature_list(ONE) + b"rest", [ONE]),
    (signature_list(ONE)[:-1], []),
    (uuid.UUID(X509_LIST).bytes_le + struct.pack("<III", 28, 0, 0), []),
    (uuid.UUID(X509_LIST).bytes_le + struct.pack("<III", 28, 100, 44), []),
    (uuid.UUID(X509_LIST).bytes_le + struct.pack("<III", 0, 0, 44), []),
], ids=["empty", "one", "two", "header", "hashes first", "rest", "cut", "no entry size", "header too long", "size 0"])
def test_efi_signature_lists(data, expected):
    assert list(certificates.signature_list_certificates(data)) == expected


def test_what_firmware_holds_besides_certificates_is_passed_over():
    assert [found.subject for found in certificates.parse_certificates([ONE, b"rubbish", TWO])] == ["One", "Two"]


def test_keys_of_the_kernel():
    found = [(key.name, key.id) for key in certificates.parse_kernel_keys(PROC_KEYS)]
    assert found == [("Debian Secure Boot CA", "6ccece7e4c6c0d1f"), ("Canonical Ltd.: Secure Boot", "88fe")]
