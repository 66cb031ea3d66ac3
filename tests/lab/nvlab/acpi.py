# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The firmware's side of the GPU memory: an SSDT with _DSD properties, carried to the kernel before the initrd.

QEMU's -acpitable is for x86 only; CONFIG_ACPI_TABLE_UPGRADE reads tables from an uncompressed cpio on both
(Documentation/admin-guide/acpi/initrd_table_override.rst).
"""

from __future__ import annotations

from collections.abc import Sequence

from . import aml, cpio
from .products import Gpu, firmware_memory

BASE_PROPERTY = "nvidia,gpu-mem-base-pa"
SIZE_PROPERTY = "nvidia,gpu-mem-size"
TABLE_DIRECTORY = "kernel/firmware/acpi"


def _device(gpu: Gpu, memory: tuple[int, int] | None) -> bytes:
    terms = [
        aml.name("_ADR", aml.integer(gpu.slot << 16 | gpu.function)),
        # QEMU's DSDT has a node for each occupied slot, too, without _STA; Linux prefers the node that has one.
        aml.name("_STA", aml.integer(0x0F)),
    ]
    if memory is not None:
        terms.append(aml.properties({BASE_PROPERTY: memory[0], SIZE_PROPERTY: memory[1]}))
    return aml.device(f"GPU{gpu.index:X}", terms)


def ssdt(gpus: Sequence[Gpu], arch: str) -> bytes:
    """Return the SSDT of a host."""
    devices = [_device(gpu, firmware_memory(gpu, arch)) for gpu in gpus]
    return aml.table(b"SSDT", b"GPUMEM", aml.scope(("_SB", "PCI0"), devices))


def early_archive(tables: dict[str, bytes]) -> bytes:
    """Return the cpio that goes before the initrd, padded as the kernel wants it between two archives."""
    data = cpio.archive({f"{TABLE_DIRECTORY}/{name}.aml": cpio.Member(table) for name, table in tables.items()})
    return data + bytes(-len(data) % 512)
