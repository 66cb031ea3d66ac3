# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a private key belong to a certificate: every kind of file, and what is no key."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.certificates import parse_certificate
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.keypair import key_fits
from ansible_collections.nvgrace.passthrough.tests.unit._host.der import EC, RSA, certificate, der, pem, rsa_public

NUMBER = 1 << 500
POINT = b"\x04" + bytes(64)
ED25519 = bytes.fromhex("06032b6570")


def rsa_key(number: int = NUMBER) -> bytes:
    public = rsa_public(number)
    return der(0x30, der(0x02, b"\0"), public[2:], der(0x02, b"\1"))


def ec_key(point: bytes = POINT) -> bytes:
    public = der(0xA1, der(0x03, b"\0" + point)) if point else b""
    return der(0x30, der(0x02, b"\1"), der(0x04, bytes(32)), der(0xA0, EC[9:]), public)


def pkcs8(algorithm: bytes, key: bytes) -> bytes:
    return pem(der(0x30, der(0x02, b"\0"), der(0x30, algorithm), der(0x04, key)), "PRIVATE KEY")


RSA_CERTIFICATE = parse_certificate(certificate(public=rsa_public(NUMBER)))
EC_CERTIFICATE = parse_certificate(certificate(public=POINT, algorithm=EC))


@pytest.mark.parametrize(("key", "of", "fits"), [
    (pkcs8(RSA, rsa_key()), RSA_CERTIFICATE, True),
    (pem(rsa_key(), "RSA PRIVATE KEY"), RSA_CERTIFICATE, True),
    (pkcs8(RSA, rsa_key(NUMBER + 2)), RSA_CERTIFICATE, False),
    (pkcs8(RSA, rsa_key()), EC_CERTIFICATE, False),
    (pkcs8(EC, ec_key()), EC_CERTIFICATE, True),
    (pem(EC[9:], "EC PARAMETERS") + pem(ec_key(), "EC PRIVATE KEY"), EC_CERTIFICATE, True),
    (pkcs8(EC, ec_key(b"\4" + b"\1" * 64)), EC_CERTIFICATE, False),
    (pkcs8(EC, ec_key()), RSA_CERTIFICATE, False),
    (pkcs8(EC, ec_key(b"")), EC_CERTIFICATE, None),
    (pkcs8(ED25519, der(0x04, bytes(32))), EC_CERTIFICATE, None),
], ids=["PKCS#8 RSA", "PKCS#1", "another RSA", "RSA key, EC certificate", "PKCS#8 EC", "SEC 1", "another EC",
        "EC key, RSA certificate", "EC without the point", "Ed25519"])
def test_key_and_certificate(key, of, fits):
    assert key_fits(key, of) is fits


@pytest.mark.parametrize(("data", "reason"), [
    (pem(b"x", "ENCRYPTED PRIVATE KEY"), "protected by a passphrase"),
    (b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
     "protected by a passphrase"),
    (b"", "not a private key in PEM"), (certificate(), "not a private key in PEM"),
    (pem(certificate(), "CERTIFICATE"), "not a private key in PEM"), (pem(b"x", "PRIVATE KEY"), "not a private key"),
    (pem(der(0x30, der(0x02, b"\0"), der(0x30), der(0x04)), "PRIVATE KEY"), "not a private key in PEM"),
])
def test_what_cannot_sign_is_told(data, reason):
    with pytest.raises(ValueError, match=reason):
        key_fits(data, RSA_CERTIFICATE)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("algorithm", [["rsa:2048"], ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]])
def test_what_openssl_makes(tmp_path: Path, algorithm: list[str]):
    for name in ("one", "two"):
        subprocess.run(["openssl", "req", "-new", "-x509", "-nodes", "-subj", "/CN=Test", "-newkey", *algorithm,
                        "-keyout", f"{name}.key", "-outform", "DER", "-out", f"{name}.der"], cwd=tmp_path, check=True,
                       capture_output=True)
    of = parse_certificate((tmp_path / "one.der").read_bytes())
    assert [key_fits((tmp_path / f"{name}.key").read_bytes(), of) for name in ("one", "two")] == [True, False]
