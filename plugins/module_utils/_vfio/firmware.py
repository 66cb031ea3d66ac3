# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adapter: whether firmware announces coherent GPU memory."""

from __future__ import annotations

from typing import Optional

from .._core.host import Host

_TABLES = "/sys/firmware/acpi/tables"
_PROPERTY = b"nvidia,gpu-mem-base-pa"


def has_memory_properties(host: Host) -> Optional[bool]:
    """Whether any DSDT or SSDT contains the property's name; None where no table can be read.

    A search for the name, not an interpreter: it cannot tell which of several GPUs the property belongs to.
    """
    tables = [host.read_bytes(f"{_TABLES}/{name}") for name in host.listdir(_TABLES)
              if name.startswith(("DSDT", "SSDT"))]
    readable = [table for table in tables if table is not None]
    return any(_PROPERTY in table for table in readable) if readable else None
