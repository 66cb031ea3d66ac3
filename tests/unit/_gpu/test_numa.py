# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generic initiators: the SRAT against the kernel's numbers."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.numa import (
    generic_initiator_nodes,
    online_memory_nodes,
    parse_node_list,
    parse_srat,
)
from ansible_collections.nvgrace.passthrough.tests.unit._gpu.fake_sysfs import FakeHost


def processor(domain: int, enabled: bool = True) -> bytes:
    return struct.pack("<BBIIII", 3, 18, domain, 0, int(enabled), 0)


def memory(domain: int, flags: int = 1) -> bytes:
    return struct.pack("<BBIHQQIIQ", 1, 40, domain, 0, 0x40000000, 0x1000, 0, flags, 0)


def initiator(domain: int, devfn: int, bus: int = 1, segment: int = 9, enabled: bool = True) -> bytes:
    return struct.pack("<BBBBIHBB12xII", 5, 32, 0, 1, domain, segment, bus, devfn, int(enabled), 0)


def table(*entries: bytes) -> bytes:
    return bytes(48) + b"".join(entries)


@pytest.mark.parametrize(("entries", "expected"), [
    ([processor(0), initiator(1, 0), initiator(2, 0)], [("0009:01:00.0", 1), ("0009:01:00.0", 2)]),
    # the kernel numbers nodes by first use, not by proximity domain
    ([processor(0), initiator(5, 0x80, bus=0, segment=0), memory(3)], [("0000:00:10.0", 1)]),
    ([memory(0), processor(4), initiator(0, 0)], [("0009:01:00.0", 1)]),
    ([processor(0), initiator(1, 0, enabled=False)], []),
    ([processor(0, enabled=False), processor(1), initiator(7, 0)], [("0009:01:00.0", 1)]),
    ([b"\x09\x02", processor(0), initiator(1, 1)], [("0009:01:00.1", 1)]),
    ([struct.pack("<BBBBIBBBBI", 0, 16, 6, 0, 1, 0, 0, 0, 0, 0), initiator(8, 0)], [("0009:01:00.0", 1)]),
])
def test_srat(entries: list[bytes], expected: list[tuple[str, int]]) -> None:
    assert parse_srat(table(*entries)) == expected


def test_numbers_are_the_kernels() -> None:
    """The SRAT of an emulated host with two GPUs, of which Linux 7.3 printed "Node 12 PXM 14"."""
    domains = [9, 12, 1, 4, 7, 10, 13, 2, 5, 8, 11, 14, 3, 6]
    entries = [initiator(domain, 0x88 if domain > 7 else 0x80, bus=0, segment=0) for domain in domains]
    nodes = parse_srat(table(processor(0), processor(0), memory(0), *entries, memory(2), memory(3), memory(14, 3)))
    assert nodes[domains.index(14)] == ("0000:00:11.0", 12)
    assert [node for address, node in nodes if address == "0000:00:10.0"] == [3, 4, 5, 8, 9, 13, 14]


@pytest.mark.parametrize("broken", [b"", bytes(48) + b"\x05", bytes(48) + b"\x05\x00" + bytes(40),
                                    table(initiator(1, 0))[:-4]])
def test_a_broken_table_ends_the_search(broken: bytes) -> None:
    assert parse_srat(broken) == []


def test_only_nodes_that_the_kernel_lists_count(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    assert generic_initiator_nodes(host) == {}
    host.write("/sys/firmware/acpi/tables/SRAT", table(processor(0), initiator(1, 0), initiator(2, 0)))
    assert generic_initiator_nodes(host) == {}
    host.write("/sys/devices/system/node/has_generic_initiator", "2\n")
    assert generic_initiator_nodes(host) == {"0009:01:00.0": (2,)}


def test_memory_that_is_online(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.write("/sys/devices/system/node/node1/meminfo", "Node 1 MemTotal:       0 kB\n")
    host.write("/sys/devices/system/node/node2/meminfo", "Node 2 MemTotal:       98304 kB\nNode 2 MemFree: 1 kB\n")
    assert online_memory_nodes(host, (1, 2, 3)) == (2,)


@pytest.mark.parametrize(("text", "expected"), [("", set()), ("3", {3}), ("0,2-4", {0, 2, 3, 4}), ("\n", set())])
def test_node_list(text: str, expected: set[int]) -> None:
    assert parse_node_list(text) == expected
