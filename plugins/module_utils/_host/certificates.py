# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""X.509 certificates and the lists in which UEFI and the kernel keep them. Pure: bytes in, values out.

Only what decides here is read of ASN.1, so that a host needs no cryptographic library. Nothing is verified: two
certificates are the same when their bytes are, which is compared by SHA-256.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Optional

# EFI_CERT_X509_GUID, a5c059a1-94e4-4aa7-87b5-ab155c2bf072: the first three fields are little endian.
_X509_LIST = bytes.fromhex("a159c0a5e494a74a87b5ab155c2bf072")
_LIST_HEADER = struct.Struct("<16sIII")
_OWNER_BYTES = 16

_CONSTRUCTED = 0x20
_LONG_TAG = 0x1F
SEQUENCE, INTEGER, BIT_STRING, OCTET_STRING, OBJECT_ID = 0x30, 0x02, 0x03, 0x04, 0x06
_CONTEXT_0, _CONTEXT_3 = 0xA0, 0xA3
_BMP_STRING = 0x1E
_COMMON_NAME, _ORGANISATION = b"\x55\x04\x03", b"\x55\x04\x0a"
_KEY_ID = b"\x55\x1d\x0e"

_PEM = r"-----BEGIN {0}-----\s+(.*?)\s*-----END {0}-----"
# "<serial> <flags> <usage> <expiry> <permissions> <uid> <gid> asymmetri <name>: <id>: X509.<algorithm> ..."
_KERNEL_KEY = re.compile(r"^[0-9a-f]+ \S+ +\d+ +\S+ [0-9a-f]+ +-?\d+ +-?\d+ asymmetri (.*): ([0-9a-f]+): X509\.",
                         re.MULTILINE)


class Element(NamedTuple):
    """One DER element: its tag octet and its content."""

    tag: int
    content: bytes


@dataclass(frozen=True)
class Certificate:
    """A certificate by what tells it from others; all ids are lower-case hexadecimal.

    ``subject`` and ``issuer`` are common names, or organisations where there is none. ``sha256`` is over the DER bytes.
    ``key_id`` is the subject key identifier, None where there is none. ``public_key`` is the key as the certificate
    holds it, without its algorithm.
    """

    sha256: str
    subject: str
    issuer: str
    serial: str
    key_id: Optional[str]
    public_key: bytes

    @property
    def kernel_id(self) -> str:
        """What /proc/keys shows of it: the subject key identifier, without one the serial number."""
        return self.key_id or self.serial


@dataclass(frozen=True)
class KernelKey:
    """An X.509 key in one of the kernel's keyrings: a name made of its subject, and ``Certificate.kernel_id``."""

    name: str
    id: str


def elements(data: bytes) -> list[Element]:
    """The DER elements that stand one after the other in ``data``; raises ValueError where it is not DER."""
    found = []
    while data:
        if len(data) < 2 or data[0] & _LONG_TAG == _LONG_TAG:
            raise ValueError("not DER: no tag and length")
        length, start = data[1], 2
        if length & 0x80:
            start += length & 0x7F
            if not 2 < start <= 6 or start > len(data):
                raise ValueError("not DER: bad length")
            length = int.from_bytes(data[2:start], "big")
        if start + length > len(data):
            raise ValueError("not DER: an element is longer than its place")
        found.append(Element(data[0], data[start:start + length]))
        data = data[start + length:]
    return found


def only_element(data: bytes, tag: int = SEQUENCE) -> bytes:
    """The content of the one element that ``data`` is; raises ValueError for anything else."""
    found = elements(data)
    if len(found) != 1 or found[0].tag != tag:
        raise ValueError(f"not DER: one element with tag {tag:#x} is expected")
    return found[0].content


def pem_block(data: bytes, label: str) -> Optional[bytes]:
    """The bytes in the first PEM block with that label, None without one; raises ValueError for bad base64."""
    match = re.search(_PEM.format(re.escape(label)).encode(), data, re.DOTALL)
    if match is None:
        return None
    try:
        return base64.b64decode(b"".join(match[1].split()), validate=True)
    except binascii.Error as error:
        raise ValueError(f"bad PEM: {error}") from error


def certificate_der(data: bytes) -> bytes:
    """The DER bytes of a certificate file in DER or PEM; raises ValueError where a PEM block is damaged."""
    return pem_block(data, "CERTIFICATE") or data


def parse_certificate(der: bytes) -> Certificate:
    """Reads a certificate in DER; raises ValueError for anything else."""
    try:
        body = elements(elements(only_element(der))[0].content)
        if body[0].tag == _CONTEXT_0:
            body = body[1:]
        serial, _algorithm, issuer, _validity, subject, key = body[:6]
        if serial.tag != INTEGER or key.tag != SEQUENCE:
            raise ValueError("not a certificate")
        public = elements(key.content)[1]
        extensions = next((part.content for part in body[6:] if part.tag == _CONTEXT_3), None)
        return Certificate(hashlib.sha256(der).hexdigest(), name_of(subject.content), name_of(issuer.content),
                           serial.content.hex(), _key_id(extensions), public.content[1:])
    except IndexError as error:
        raise ValueError("not a certificate: it ends early") from error


def name_of(name: bytes) -> str:
    """The common name in the content of an X.501 name, else its organisation, else an empty string."""
    values = {}
    for relative in elements(name):
        for attribute in elements(relative.content):
            kind, value = elements(attribute.content)[:2]
            encoding = "utf-16-be" if value.tag == _BMP_STRING else "utf-8"
            values[kind.content] = value.content.decode(encoding, "replace")
    return values.get(_COMMON_NAME) or values.get(_ORGANISATION) or ""


def _key_id(extensions: Optional[bytes]) -> Optional[str]:
    if extensions is None:
        return None
    for extension in elements(only_element(extensions)):
        parts = elements(extension.content)
        if parts[0].content == _KEY_ID:
            return only_element(parts[-1].content, OCTET_STRING).hex()
    return None


def signature_list_certificates(data: bytes) -> Iterator[bytes]:
    """The DER certificates in EFI_SIGNATURE_LISTs, as db and MokListRT hold them, without the variable's attributes.

    Lists of other kinds, as hashes, are passed over. A list that lies about its size ends the reading.
    """
    while len(data) >= _LIST_HEADER.size:
        kind, size, header, entry = _LIST_HEADER.unpack_from(data)
        start = _LIST_HEADER.size + header
        if size > len(data) or start > size or entry <= _OWNER_BYTES:
            return
        if kind == _X509_LIST:
            for offset in range(start, size - entry + 1, entry):
                yield data[offset + _OWNER_BYTES:offset + entry]
        data = data[size:]


def parse_certificates(ders: Sequence[bytes]) -> tuple[Certificate, ...]:
    """Those that can be read; firmware may hold what is no certificate."""
    found = []
    for der in ders:
        try:
            found.append(parse_certificate(der))
        except ValueError:
            continue
    return tuple(found)


def parse_kernel_keys(proc_keys: str) -> tuple[KernelKey, ...]:
    """The X.509 keys in the text of /proc/keys.

    The kernel makes the name of a key of the certificate's subject and of its id. The file does not say which keyring
    a key is in.
    """
    return tuple(KernelKey(name, key) for name, key in _KERNEL_KEY.findall(proc_keys))
