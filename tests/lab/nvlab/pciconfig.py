# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""PCI configuration space: 4096 bytes, a write mask of the same size, and the capabilities that a GPU has."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from .products import Bar

SIZE = 4096
COMMAND = 0x04
CACHE_LINE_SIZE = 0x0C
BAR0 = 0x10
SUBSYSTEM = 0x2C
CAPABILITY_POINTER = 0x34
INTERRUPT_LINE = 0x3C
PM, MSI, EXPRESS = 0x40, 0x48, 0x60  # where the capabilities lie
DEVICE_CONTROL = EXPRESS + 0x08
FLR_BYTE, FLR_BIT = DEVICE_CONTROL + 1, 0x80  # bit 15 of Device Control: Initiate Function Level Reset
SERIAL_NUMBER, DVSEC, CXL_DVSEC = 0x100, 0x110, 0x120
CXL_VENDOR, CXL_DEVICE = 0x1E98, 0  # of the PCIe DVSEC for CXL Devices (CXL 3.1, 8.1.3)
CXL_RANGE_STATUS = CXL_DVSEC + 0x1C
BAR_64BIT_PREFETCHABLE = 0xC


class ConfigSpace:
    """Registers and which of their bits a write can change."""

    def __init__(self) -> None:
        self.data = bytearray(SIZE)
        self.mask = bytearray(SIZE)

    def put(self, layout: str, offset: int, *values: int) -> None:
        """Set registers, little endian."""
        struct.pack_into(f"<{layout}", self.data, offset, *values)

    def writable(self, layout: str, offset: int, *masks: int) -> None:
        """Say which bits a write can change."""
        struct.pack_into(f"<{layout}", self.mask, offset, *masks)

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes. Raises ValueError outside the space."""
        _check(offset, count)
        return bytes(self.data[offset:offset + count])

    def write(self, offset: int, data: bytes) -> bool:
        """Store the writable bits; return whether the write asks for a function level reset."""
        _check(offset, len(data))
        for position, byte in enumerate(data, offset):
            mask = self.mask[position]
            self.data[position] = self.data[position] & ~mask & 0xFF | byte & mask
        reset_byte = FLR_BYTE - offset
        return 0 <= reset_byte < len(data) and bool(data[reset_byte] & FLR_BIT)


def _check(offset: int, count: int) -> None:
    if offset < 0 or count < 0 or offset + count > SIZE:
        raise ValueError(f"configuration access of {count} bytes at {offset:#x} leaves the space")


def gpu_config(vendor: int, device: int, class_code: int, bars: Sequence[Bar], serial: int,
               dvsec_flags: int | None = None, cxl: bool = False) -> ConfigSpace:
    """Return the reset state of a GPU's configuration space."""
    config = ConfigSpace()
    _header(config, vendor, device, class_code)
    for bar in bars:
        _bar(config, bar)
    _power_management(config)
    _msi(config)
    _express(config)
    extended = [SERIAL_NUMBER, *([] if dvsec_flags is None else [DVSEC]), *([CXL_DVSEC] if cxl else [])]
    following = dict(zip(extended, [*extended[1:], 0], strict=True))
    config.put("IQ", SERIAL_NUMBER, _extended_header(0x0003, following[SERIAL_NUMBER]), serial)
    if dvsec_flags is not None:
        length, identifier = 0x10, 3
        config.put("IIHH", DVSEC, _extended_header(0x0023, following[DVSEC]), vendor | 1 << 16 | length << 20,
                   identifier, dvsec_flags)
    if cxl:
        _cxl_device(config, following[CXL_DVSEC])
    return config


def _extended_header(identifier: int, following: int) -> int:
    return identifier | 1 << 16 | following << 20


def _cxl_device(config: ConfigSpace, following: int) -> None:
    revision, length = 2, 0x3C
    memory_capable_one_range = 0x0014
    config.put("IIHH", CXL_DVSEC, _extended_header(0x0023, following), CXL_VENDOR | revision << 16 | length << 20,
               CXL_DEVICE, memory_capable_one_range)


def _header(config: ConfigSpace, vendor: int, device: int, class_code: int) -> None:
    status_has_capabilities = 0x0010
    revision = 0xA1
    config.put("HHHHBBH", 0x00, vendor, device, 0, status_has_capabilities, revision, 0, class_code)
    config.put("HH", SUBSYSTEM, vendor, 0x16EB)
    config.put("B", CAPABILITY_POINTER, PM)
    config.put("BB", INTERRUPT_LINE, 0, 1)
    config.writable("H", COMMAND, 0x0547)
    config.writable("B", CACHE_LINE_SIZE, 0xFF)
    config.writable("B", INTERRUPT_LINE, 0xFF)


def _bar(config: ConfigSpace, bar: Bar) -> None:
    register = BAR0 + 4 * bar.index
    if bar.wide:
        config.put("Q", register, BAR_64BIT_PREFETCHABLE)
        config.writable("Q", register, ~(bar.size - 1) & 0xFFFFFFFFFFFFFFF0)
    else:
        config.writable("I", register, ~(bar.size - 1) & 0xFFFFFFF0)


def _power_management(config: ConfigSpace) -> None:
    no_soft_reset = 0x0008
    config.put("BBHH", PM, 0x01, MSI, 0x0003, no_soft_reset)
    config.writable("B", PM + 4, 0x03)


def _msi(config: ConfigSpace) -> None:
    address_64bit = 0x0080
    config.put("BBH", MSI, 0x05, EXPRESS, address_64bit)
    config.writable("BBIIH", MSI + 2, 0x01, 0, 0xFFFFFFFC, 0xFFFFFFFF, 0xFFFF)


def _express(config: ConfigSpace) -> None:
    endpoint_version_2 = 0x0002
    function_level_reset, role_based_errors, payload_512 = 1 << 28, 1 << 15, 2
    device_control = 0x2810
    gen1_x1 = 0x0011
    aspm_none_l0s = 0x0400
    config.put("BBHIHHIHH", EXPRESS, 0x10, 0, endpoint_version_2,
               function_level_reset | role_based_errors | payload_512, device_control, 0,
               aspm_none_l0s | gen1_x1, 0, gen1_x1)
    config.writable("H", DEVICE_CONTROL, 0x7FFF)
    config.writable("H", EXPRESS + 0x10, 0x0FFF)  # Link Control
    config.writable("H", EXPRESS + 0x28, 0xFFFF)  # Device Control 2
