# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adapter: PCI functions, IOMMU groups and drivers as sysfs shows them."""

from __future__ import annotations

import re
import struct
from typing import Optional

from .._core.errors import PassthroughError
from .._core.host import Host
from .model import Bar, Link, PciFunction, PciIdentity

DEVICES = "/sys/bus/pci/devices"
DRIVERS = "/sys/bus/pci/drivers"
GROUPS = "/sys/kernel/iommu_groups"

# Vendor and device id, base class, subclass and interface, which the kernel writes with upper-case digits.
_MODALIAS = re.compile(r"pci:v0000([0-9A-F]{4})d0000([0-9A-F]{4})\S*bc([0-9A-F]{2})sc([0-9A-F]{2})i([0-9A-F]{2})")
# As "32.0 GT/s PCIe" and "16", or "Unknown" and "0" where there is no link.
_NUMBER = re.compile(r"[0-9]{1,4}([.][0-9]{1,2})?")
_STANDARD_BARS = 6
# In bytes: the standardized part of the config space, and vendor and device id, revision and class in it.
_HEADER_SIZE = 64
_IDS, _CLASS = slice(0, 4), slice(8, 12)
_EXTENDED_CAPABILITIES = 0x100
_DVSEC = 0x23


def device_path(address: str, attribute: str = "") -> str:
    """Path of a function's directory in sysfs, or of an attribute in it."""
    return f"{DEVICES}/{address}/{attribute}" if attribute else f"{DEVICES}/{address}"


def list_identities(host: Host) -> dict[str, PciIdentity]:
    """All PCI functions of the host by address, with one file of each read."""
    found = {}
    for address in host.listdir(DEVICES):
        match = _MODALIAS.match(host.read_text(device_path(address, "modalias")) or "")
        if match is not None:  # else it left the host between two reads
            vendor, device, class_code = match.group(1).lower(), match.group(2).lower(), "".join(match.groups()[2:])
            found[address] = PciIdentity(address, vendor, device, int(class_code, 16))
    return found


def read_identity(host: Host, address: str) -> Optional[PciIdentity]:
    """The ids of one function, or None where there is no such function (any more)."""
    vendor, device, class_code = (host.read_text(device_path(address, name)) for name in ("vendor", "device", "class"))
    if vendor is None or device is None or class_code is None:
        return None
    return PciIdentity(address, _hex_id(vendor), _hex_id(device), int(class_code, 16))


def read_function(host: Host, address: str) -> PciFunction:
    """Everything about one function. Raises PassthroughError where it is gone."""
    identity = read_identity(host, address)
    if identity is None:
        raise PassthroughError(f"The PCI function {address} is not there any more: look at the kernel log and rescan.")

    def text(name: str) -> str:
        return host.read_text(device_path(address, name)) or ""

    subsystem = f"{_hex_id(text('subsystem_vendor') or '0x0000')}:{_hex_id(text('subsystem_device') or '0x0000')}"
    override = text("driver_override")
    return PciFunction(
        identity=identity,
        subsystem=subsystem,
        numa_node=int(text("numa_node") or -1),
        group=read_group_number(host, address),
        driver=read_driver(host, address),
        driver_override=None if override in ("", "(null)") else override,
        vfio_device=next(iter(host.listdir(device_path(address, "vfio-dev"))), None),
        modalias=text("modalias"),
        bars=parse_resource(text("resource")),
        reset_methods=tuple(text("reset_method").split()),
        boot_vga=text("boot_vga") == "1",
        link=read_link(host, address),
    )


def read_link(host: Host, address: str) -> Optional[Link]:
    """The PCIe link of a function. None where it has none, and where the kernel calls its speed unknown."""
    names = ("current_link_speed", "current_link_width", "max_link_speed", "max_link_width")
    found = [_NUMBER.match(host.read_text(device_path(address, name)) or "") for name in names]
    speed, width, max_speed, max_width = (float(match.group()) if match else 0.0 for match in found)
    if not speed or not width:
        return None
    return Link(speed, int(width), max_speed, int(max_width))


def read_driver(host: Host, address: str) -> Optional[str]:
    """Name of the bound driver: the only proof that a bind worked, because drivers_probe succeeds without one."""
    return host.readlink_name(device_path(address, "driver"))


def require_answer(host: Host, address: str) -> None:
    """Raises PassthroughError where the function has fallen off the bus: the kernel lists it with the ids that it once
    read, and its config space reads as ones. A virtual function has ones for its ids, and a class all the same (PCIe,
    single root I/O virtualization)."""
    header = (host.read_bytes(device_path(address, "config")) or b"")[:_HEADER_SIZE]
    if len(header) == _HEADER_SIZE and {*header[_IDS], *header[_CLASS]} == {0xFF}:
        raise PassthroughError(f"{address} does not answer: its config space reads as ones, so it has fallen off the "
                               "bus or has no power. Look at the kernel log, and reset or reseat it; nothing was "
                               "changed.")


def read_group_number(host: Host, address: str) -> Optional[int]:
    """IOMMU group, or None: on some kernels a function joins its group only when a driver is probed first."""
    name = host.readlink_name(device_path(address, "iommu_group"))
    return int(name) if name is not None and name.isdigit() else None


def read_group_members(host: Host, group: int) -> tuple[str, ...]:
    """Addresses of all functions of an IOMMU group, sorted."""
    return tuple(host.listdir(f"{GROUPS}/{group}/devices"))


def group_isolates(host: Host, group: int) -> bool:
    """False for the groups that VFIO's no-IOMMU mode makes up: they have this name and protect nothing."""
    return host.read_text(f"{GROUPS}/{group}/name") != "vfio-noiommu"


def has_iommu(host: Host) -> bool:
    """Whether any IOMMU has registered with the kernel."""
    return bool(host.listdir("/sys/class/iommu") or host.listdir(GROUPS))


def driver_of_module(host: Host, module: str) -> Optional[str]:
    """The PCI driver directory of a loaded module, looked up because its spelling follows no rule. None: not loaded."""
    names = host.listdir(f"/sys/module/{module.replace('-', '_')}/drivers")
    return next((name[len("pci:"):] for name in names if name.startswith("pci:")), None)


def has_driver(host: Host, driver: str) -> bool:
    """Whether a PCI driver of this name is registered."""
    return host.is_dir(f"{DRIVERS}/{driver}")


def module_of_driver(host: Host, driver: str) -> Optional[str]:
    """The loaded module of a PCI driver; None where the driver is not registered or is part of the kernel image."""
    return host.readlink_name(f"{DRIVERS}/{driver}/module")


def parse_resource(text: str) -> tuple[Bar, ...]:
    """The six standard BARs that exist, from the lines ``start end flags`` of the sysfs file ``resource``."""
    bars = []
    for index, line in enumerate(text.splitlines()[:_STANDARD_BARS]):
        fields = line.split()
        if len(fields) != 3:
            continue
        start, end, flags = (int(field, 16) for field in fields)
        if flags and end > start:
            bars.append(Bar(index, start, end - start + 1, flags))
    return tuple(bars)


def find_dvsec(config: bytes, vendor: int, identifier: int) -> Optional[int]:
    """Offset of a Designated Vendor-Specific Extended Capability in a 4096-byte config space, or None.

    Source: PCI Express Base Specification, 7.9.6; each offset is visited once, so that a looping chain ends.
    """
    offset = _EXTENDED_CAPABILITIES
    seen = set()
    while offset >= _EXTENDED_CAPABILITIES and offset + 12 <= len(config) and offset not in seen:
        seen.add(offset)
        header, header1, header2 = struct.unpack_from("<III", config, offset)
        if header in (0, 0xFFFFFFFF):
            return None
        if header & 0xFFFF == _DVSEC and header1 & 0xFFFF == vendor and header2 & 0xFFFF == identifier:
            return offset
        offset = header >> 20 & 0xFFC
    return None


def _hex_id(text: str) -> str:
    return f"{int(text, 16):04x}"
