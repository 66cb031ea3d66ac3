# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The ACPI tables, read back by an independent reader of the few AML terms that they use."""

from __future__ import annotations

import struct
import uuid

import pytest
from nvlab import acpi, aml, dsdt
from nvlab.products import GIB, MIB
from nvlab.spec import make_spec

BASE, SIZE = "nvidia,gpu-mem-base-pa", "nvidia,gpu-mem-size"
DSD = uuid.UUID("daffd814-6eba-4d8c-8a91-bc9bbf4aa301").bytes_le


def read_length(data: bytes, at: int) -> tuple[int, int]:
    """Return (end of the package, start of its body)."""
    extra = data[at] >> 6
    if extra == 0:
        return at + (data[at] & 0x3F), at + 1
    high = int.from_bytes(data[at + 1:at + 1 + extra], "little")
    return at + ((data[at] & 0xF) | high << 4), at + 1 + extra


def read_term(data: bytes, at: int) -> tuple[object, int]:
    """Return (value, next position) of an integer, string, buffer or package."""
    kind = data[at]
    if kind == 0x0E:
        return struct.unpack_from("<Q", data, at + 1)[0], at + 9
    if kind == 0x0D:
        end = data.index(0, at)
        return data[at + 1:end].decode(), end + 1
    end, body = read_length(data, at + 1)
    if kind == 0x11:
        size, body = read_term(data, body)
        assert size == end - body
        return data[body:end], end
    assert kind == 0x12, hex(kind)
    count, body, elements = data[body], body + 1, []
    while body < end:
        value, body = read_term(data, body)
        elements.append(value)
    assert (count, body) == (len(elements), end)
    return elements, end


def read_names(data: bytes, at: int, end: int) -> dict[str, object]:
    names = {}
    while at < end:
        assert data[at] == 0x08
        segment = data[at + 1:at + 5].decode()
        names[segment], at = read_term(data, at + 5)
    return names


def read_ssdt(table: bytes) -> dict[str, dict[str, object]]:
    """Return device -> name -> value."""
    assert table[:4] == b"SSDT"
    assert struct.unpack_from("<I", table, 4)[0] == len(table)
    assert sum(table) & 0xFF == 0
    assert table[8] == 2, "integers are 32 bits wide below revision 2"
    assert table[36] == 0x10
    end, at = read_length(table, 37)
    assert end == len(table)
    assert table[at:at + 10] == b"\\\x2e_SB_PCI0"
    at += 10
    devices = {}
    while at < end:
        assert table[at:at + 2] == b"\x5b\x82"
        stop, body = read_length(table, at + 2)
        devices[table[body:body + 4].decode()] = read_names(table, body + 4, stop)
        at = stop
    return devices


@pytest.mark.parametrize(("length", "encoded"), [
    (0, "01"), (62, "3f"), (63, "4104"), (4093, "4fff"), (4094, "810001"), (70000, "831711"),
])
def test_package_length(length: int, encoded: str) -> None:
    assert aml.package_length(bytes(length)).hex() == encoded


def test_package_length_has_an_end() -> None:
    with pytest.raises(ValueError, match="too long"):
        aml.package_length(bytes(1 << 28))


@pytest.mark.parametrize(("faults", "expected"), [
    ([], {BASE: 8 * GIB, SIZE: 2560 * MIB}),
    (["size-zero"], {BASE: 8 * GIB, SIZE: 0}),
    (["range-in-ram"], {BASE: 0x60000000, SIZE: 2560 * MIB}),
    (["odd-size"], {BASE: 8 * GIB, SIZE: 2560 * MIB - 1000}),
    (["base-in-page"], {BASE: 8 * GIB + 2048, SIZE: 2560 * MIB - 4096}),
    (["range-wraps"], {BASE: 2**64 - 1280 * MIB, SIZE: 2560 * MIB}),
    (["range-unreachable"], {BASE: 2**56 + 8 * GIB, SIZE: 2560 * MIB}),
    (["no-properties"], None),
    (["c2c-down", "no-iommu"], {BASE: 8 * GIB, SIZE: 2560 * MIB}),
])
def test_properties_of_one_gpu(faults: list[str], expected: dict[str, int] | None) -> None:
    spec = make_spec("grace", "arm64", "7.3", "gh200-120gb", 1, faults)
    devices = read_ssdt(acpi.ssdt([(gpu, spec.firmware_memory(gpu)) for gpu in spec.gpus]))
    assert devices["GPU0"]["_ADR"] == 0x100000
    assert devices["GPU0"]["_STA"] == 0x0F
    if expected is None:
        assert "_DSD" not in devices["GPU0"]
    else:
        identifier, pairs = devices["GPU0"]["_DSD"]
        assert identifier == DSD
        assert dict(pairs) == expected


def test_each_gpu_has_its_own_memory() -> None:
    spec = make_spec("grace", "arm64", "7.3", "gb300", 4, [])
    devices = read_ssdt(acpi.ssdt([(gpu, spec.firmware_memory(gpu)) for gpu in spec.gpus]))
    assert list(devices) == ["GPU0", "GPU1", "GPU2", "GPU3"]
    assert [devices[name]["_ADR"] for name in devices] == [0x100000, 0x110000, 0x120000, 0x130000]
    bases = [dict(devices[name]["_DSD"][1])[BASE] for name in devices]
    assert bases == [8 * GIB, 12 * GIB, 16 * GIB, 20 * GIB]


def test_a_fault_of_one_gpu_leaves_the_others_alone() -> None:
    spec = make_spec("grace", "arm64", "7.3", "gb300", 2, ["1:no-properties"])
    devices = read_ssdt(acpi.ssdt([(gpu, spec.firmware_memory(gpu)) for gpu in spec.gpus]))
    assert "_DSD" not in devices["GPU1"]
    assert dict(devices["GPU0"]["_DSD"][1]) == {BASE: 8 * GIB, SIZE: 1792 * MIB}


def test_dsdt_upgrade() -> None:
    old = bytearray(aml.table(b"DSDT", b"BXPC", b"body"))
    old[8] = 1
    new = aml.with_64_bit_integers(bytes(old) + b"what follows the table is not part of it")
    assert new[8] == 2
    assert struct.unpack_from("<I", new, 24)[0] == struct.unpack_from("<I", old, 24)[0] + 1
    assert new[36:] == b"body"
    assert sum(new) & 0xFF == 0
    with pytest.raises(ValueError, match="not a DSDT"):
        aml.with_64_bit_integers(aml.table(b"SSDT", b"X", b""))


def test_dsdt_is_found_in_memory() -> None:
    table = aml.table(b"DSDT", b"BXPC", b"body")
    damaged = table[:-1] + b"?"
    cut = b"DSDT" + struct.pack("<I", 1 << 20)
    assert dsdt.find_table(b"..." + cut + damaged + b"xx" + table + b"yy", b"DSDT") == table
    assert dsdt.find_table(b"..." + damaged + b"DSDT", b"DSDT") is None
