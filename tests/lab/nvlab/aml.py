# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""ACPI tables, byte by byte: the few AML terms that _DSD properties need (ACPI 6.5, chapter 20)."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence

DEVICE_PROPERTIES = uuid.UUID("daffd814-6eba-4d8c-8a91-bc9bbf4aa301")
OEM_ID = b"NVLAB "
HEADER = struct.Struct("<4sIBB6s8sI4sI")


def package_length(body: bytes) -> bytes:
    """Encode PkgLength (ACPI 20.2.4); the length counts its own bytes."""
    if len(body) + 1 < 0x40:
        return bytes([len(body) + 1])
    for extra in (1, 2, 3):
        total = len(body) + 1 + extra
        if total < 1 << (4 + 8 * extra):
            return bytes([extra << 6 | total & 0xF]) + (total >> 4).to_bytes(extra, "little")
    raise ValueError(f"an AML package of {len(body)} bytes is too long")


def integer(value: int) -> bytes:
    """Encode an integer as a QWordConst: one form for all, and the properties are u64."""
    return b"\x0e" + struct.pack("<Q", value)


def string(text: str) -> bytes:
    """Encode an ASCII string."""
    return b"\x0d" + text.encode("ascii") + b"\0"


def buffer(data: bytes) -> bytes:
    """Encode a buffer with its size."""
    body = integer(len(data)) + data
    return b"\x11" + package_length(body) + body


def package(elements: Sequence[bytes]) -> bytes:
    """Encode a package."""
    body = bytes([len(elements)]) + b"".join(elements)
    return b"\x12" + package_length(body) + body


def name(segment: str, value: bytes) -> bytes:
    """Encode Name(SEGMENT, value)."""
    return b"\x08" + _segment(segment) + value


def device(segment: str, terms: Sequence[bytes]) -> bytes:
    """Encode Device(SEGMENT) {...}."""
    body = _segment(segment) + b"".join(terms)
    return b"\x5b\x82" + package_length(body) + body


def scope(path: Sequence[str], terms: Sequence[bytes]) -> bytes:
    """Encode Scope(\\A.B) {...} for an absolute path of two segments."""
    if len(path) != 2:
        raise ValueError("only paths of two segments are encoded here")
    body = b"\\\x2e" + b"".join(map(_segment, path)) + b"".join(terms)
    return b"\x10" + package_length(body) + body


def properties(values: dict[str, int]) -> bytes:
    """Encode Name(_DSD, ...) with integer device properties."""
    pairs = [package([string(key), integer(value)]) for key, value in values.items()]
    return name("_DSD", package([buffer(DEVICE_PROPERTIES.bytes_le), package(pairs)]))


def table(signature: bytes, table_id: bytes, body: bytes) -> bytes:
    """Return a table of revision 2 (64-bit integers) with its checksum."""
    length = HEADER.size + len(body)
    header = HEADER.pack(signature, length, 2, 0, OEM_ID, table_id.ljust(8), 1, b"NVLB", 1)
    return with_checksum(header + body)


def with_checksum(data: bytes) -> bytes:
    """Return the table with the checksum byte that makes the sum of all bytes zero."""
    fixed = bytearray(data)
    fixed[9] = 0
    fixed[9] = -sum(fixed) & 0xFF
    return bytes(fixed)


def with_64_bit_integers(dsdt: bytes) -> bytes:
    """Return a DSDT at revision 2, with a higher OEM revision so that Linux takes it for an upgrade.

    QEMU's q35 has a DSDT of revision 1, whose integers are 32 bits wide in all SSDTs, too: a memory base of 8 GiB
    would read as 0. Raises ValueError when this is no DSDT.
    """
    if dsdt[:4] != b"DSDT":
        raise ValueError(f"this is a {dsdt[:4]!r} table, not a DSDT")
    signature, length, _, _, oem, table_id, revision, creator, creator_revision = HEADER.unpack_from(dsdt)
    header = HEADER.pack(signature, length, 2, 0, oem, table_id, revision + 1, creator, creator_revision)
    return with_checksum(header + dsdt[HEADER.size:length])


def _segment(text: str) -> bytes:
    if not 1 <= len(text) <= 4:
        raise ValueError(f"an ACPI name has one to four characters: {text!r}")
    return text.ljust(4, "_").encode("ascii")
