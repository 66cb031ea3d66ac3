# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the firmware's ACPI tables say. Tables are searched, not interpreted: there is no AML interpreter here."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Optional

from .._core.host import Host

TABLES = "/sys/firmware/acpi/tables"
# Both are needed: the VFIO driver falls back to plain PCI regions when either is missing.
MEMORY_PROPERTIES = (b"nvidia,gpu-mem-base-pa", b"nvidia,gpu-mem-size")

_SRAT_ENTRIES = 48
_ENABLED = 1
# Subtable type -> (offset of the proximity domain, offset of the flags); ACPI 6.5, 5.2.16. Type 0 splits its domain.
_SRAT_FIELDS = {1: (2, 28), 2: (4, 12), 3: (2, 10), 5: (4, 24)}
_SRAT_PROCESSOR = 0


def read_firmware_properties(host: Host) -> str:
    """"present", "absent" or "unknown" for the ``_DSD`` properties that describe coherent GPU memory."""
    tables = list(_definition_blocks(host))
    if all(any(name in data for data in tables if data) for name in MEMORY_PROPERTIES):
        return "present"
    return "absent" if tables and all(tables) else "unknown"


def _definition_blocks(host: Host) -> Iterator[Optional[bytes]]:
    for directory in (TABLES, f"{TABLES}/dynamic"):
        for name in host.listdir(directory):
            if name.startswith(("DSDT", "SSDT")):
                yield host.read_bytes(f"{directory}/{name}")


def read_firmware_domains(host: Host) -> Optional[int]:
    """Number of proximity domains in the SRAT: the NUMA nodes that the kernel should have. None without an SRAT."""
    data = host.read_bytes(f"{TABLES}/SRAT")
    if data is None or len(data) < _SRAT_ENTRIES:
        return None
    return len(set(_domains(data)))


def _domains(data: bytes) -> Iterator[int]:
    offset = _SRAT_ENTRIES
    while offset + 2 <= len(data):
        kind, length = data[offset], data[offset + 1]
        entry = data[offset:offset + length]
        if length < 2 or len(entry) < length:
            return
        if kind == _SRAT_PROCESSOR and length >= 12:
            if _u32(entry, 4) & _ENABLED:
                yield entry[2] | entry[9] << 8 | entry[10] << 16 | entry[11] << 24
        elif kind in _SRAT_FIELDS and length >= _SRAT_FIELDS[kind][1] + 4:
            domain, flags = _SRAT_FIELDS[kind]
            if _u32(entry, flags) & _ENABLED:
                yield _u32(entry, domain)
        offset += length


def _u32(entry: bytes, offset: int) -> int:
    return int(struct.unpack_from("<I", entry, offset)[0])
