# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adapter: which NUMA nodes belong to a GPU."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import Optional

from .._core.host import Host

_NODES = "/sys/devices/system/node"
_SRAT = "/sys/firmware/acpi/tables/SRAT"

# ACPI 6.5, 5.2.16: System Resource Affinity Table
_SRAT_HEADER = 48
_CPU, _MEMORY, _X2APIC, _GICC, _GENERIC_INITIATOR = 0, 1, 2, 3, 5
_PCI_HANDLE = 1


def generic_initiator_nodes(host: Host) -> dict[str, tuple[int, ...]]:
    """NUMA nodes of each PCI function that firmware names as a generic initiator, by address.

    The kernel does not publish the connection, so the SRAT is read and the node numbers are counted as the kernel
    does (drivers/acpi/numa/srat.c); a node that the kernel does not list as a generic initiator is left out.
    """
    table = host.read_bytes(_SRAT)
    kernel = parse_node_list(host.read_text(f"{_NODES}/has_generic_initiator") or "")
    if table is None or not kernel:
        return {}
    found: dict[str, list[int]] = {}
    for address, node in parse_srat(table):
        if node in kernel:
            found.setdefault(address, []).append(node)
    return {address: tuple(sorted(nodes)) for address, nodes in found.items()}


def parse_srat(table: bytes) -> list[tuple[str, int]]:
    """(PCI address, node) of each enabled generic initiator. Nodes are numbered by first use of a proximity domain:
    first processors and initiators in the order of the table, then memory."""
    first: list[int] = []
    memory: list[int] = []
    initiators: list[tuple[str, int]] = []
    offset = _SRAT_HEADER
    while offset + 2 <= len(table):
        kind, length = table[offset], table[offset + 1]
        if length < 2 or offset + length > len(table):
            break
        entry = table[offset:offset + length]
        domain = _enabled_domain(kind, entry)
        if domain is not None:
            (memory if kind == _MEMORY else first).append(domain)
            if kind == _GENERIC_INITIATOR and entry[3] == _PCI_HANDLE:
                initiators.append((_handle_address(entry), domain))
        offset += length
    order = list(dict.fromkeys(first + memory))
    return [(address, order.index(domain)) for address, domain in initiators]


def _enabled_domain(kind: int, entry: bytes) -> Optional[int]:
    """Proximity domain of a SRAT entry, or None for one that is disabled or of no interest."""
    layouts = {_CPU: (16, 4), _MEMORY: (40, 28), _X2APIC: (24, 12), _GICC: (18, 10), _GENERIC_INITIATOR: (32, 24)}
    if kind not in layouts or len(entry) < layouts[kind][0]:
        return None
    flags = struct.unpack_from("<I", entry, layouts[kind][1])[0]
    if not flags & 1:
        return None
    if kind == _CPU:
        return entry[2] | entry[9] << 8 | entry[10] << 16 | entry[11] << 24
    return int(struct.unpack_from("<I", entry, 2 if kind in (_MEMORY, _GICC) else 4)[0])


def _handle_address(entry: bytes) -> str:
    """Table 5.66: 16 bits of segment, then one byte of bus, and one of device and function."""
    segment, bus, devfn = struct.unpack_from("<HBB", entry, 8)
    return f"{segment:04x}:{bus:02x}:{devfn >> 3:02x}.{devfn & 7}"


def online_memory_nodes(host: Host, nodes: Iterable[int]) -> tuple[int, ...]:
    """Those of ``nodes`` that have memory the kernel allocates from."""
    found = []
    for node in nodes:
        text = host.read_text(f"{_NODES}/node{node}/meminfo") or ""
        match = re.search(r"MemTotal:\s+(\d+) kB", text)
        if match and int(match.group(1)) > 0:
            found.append(node)
    return tuple(found)


def parse_node_list(text: str) -> frozenset[int]:
    """The numbers of a kernel list such as ``0,2-5``."""
    numbers: set[int] = set()
    for part in text.split(","):
        low, _dash, high = part.strip().partition("-")
        if low.isdigit():
            numbers.update(range(int(low), int(high or low) + 1))
    return frozenset(numbers)
