# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Searching ACPI tables for the memory properties, and counting proximity domains."""

from __future__ import annotations

import struct

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.acpi import (
    read_firmware_domains,
    read_firmware_properties,
)

BASE, SIZE = b"..nvidia,gpu-mem-base-pa..", b"..nvidia,gpu-mem-size.."


@pytest.mark.parametrize(("tables", "expected"), [
    ({"DSDT": b"x", "SSDT1": BASE + SIZE}, "present"),
    ({"DSDT": b"x", "dynamic/SSDT3": BASE + SIZE}, "present"),
    ({"DSDT": BASE, "SSDT1": SIZE}, "present"),
    ({"DSDT": b"", "SSDT1": BASE + SIZE}, "present"),
    ({"DSDT": b"x", "SSDT1": BASE}, "absent"),
    ({"DSDT": b"x", "FACP": BASE + SIZE}, "absent"),
    ({"DSDT": b"x", "SSDT1": b""}, "unknown"),
    ({}, "unknown"),
])
def test_firmware_properties(tree, tables, expected):
    for name, data in tables.items():
        tree.write(f"/sys/firmware/acpi/tables/{name}", data)
    assert read_firmware_properties(tree.host) == expected


def _entry(kind: int, length: int, **fields: int) -> bytes:
    """An SRAT subtable with 32-bit values at the offsets named o<N>."""
    data = bytearray(length)
    data[0], data[1] = kind, length
    for name, value in fields.items():
        struct.pack_into("<I", data, int(name[1:]), value)
    return bytes(data)


PROCESSOR = bytes([0, 16, 0x01, 7, 1, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0])
MEMORY = _entry(1, 40, o2=5, o28=1)
X2APIC = _entry(2, 24, o4=6, o12=1)
GICC = _entry(3, 18, o2=7, o10=1)
INITIATOR = _entry(5, 32, o4=8, o24=1)
DISABLED = _entry(1, 40, o2=9, o28=0)
ITS = bytes([4, 12]) + bytes(10)


@pytest.mark.parametrize(("entries", "domains"), [
    ([MEMORY, X2APIC, GICC, INITIATOR], 4),
    ([MEMORY, MEMORY, _entry(3, 18, o2=5, o10=1)], 1),
    ([PROCESSOR, _entry(1, 40, o2=0x201, o28=1)], 1),
    ([DISABLED, ITS, INITIATOR], 1),
    ([INITIATOR, b"\x05\x20short"], 1),
    ([b"\x05\x00", INITIATOR], 0),
    ([], 0),
])
def test_firmware_domains(tree, entries, domains):
    tree.write("/sys/firmware/acpi/tables/SRAT", bytes(48) + b"".join(entries))
    assert read_firmware_domains(tree.host) == domains


@pytest.mark.parametrize("content", [None, b"SRAT"])
def test_firmware_domains_without_a_table(tree, content):
    if content is not None:
        tree.write("/sys/firmware/acpi/tables/SRAT", content)
    assert read_firmware_domains(tree.host) is None
