# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the invariants look at, taken from a plan or from XML, so that both are held to the same rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional
from xml.etree import ElementTree

from .facts import parse_cpus
from .model import KIB, DomainPlan, PciAddress, RootPort
from .request import parse_size

QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
# Elements of <devices> that take a place on the guest's PCI bus when they are virtio ones or have no model
_PCI_DEVICES = ("disk", "interface", "controller", "rng", "hostdev", "video", "sound", "input", "vsock", "watchdog",
                "filesystem", "memballoon")
_INITIATOR = re.compile(r"acpi-generic-initiator,.*pci-dev=([^,]+),node=([0-9]+)")
_EMPTY_NODE = re.compile(r"node,nodeid=([0-9]+)")
_WINDOW = re.compile(r"highmem-mmio-size=([0-9]+[KMGT]?)")


@dataclass(frozen=True)
class Controller:
    """A PCI controller of the guest; ``bus_number`` is an expander's."""

    index: int
    model: str
    alias: str
    hotplug: bool
    bus_number: Optional[int]
    node: Optional[int]
    address: Optional[PciAddress]


@dataclass(frozen=True)
class Device:
    """A PCI device of the guest: ``kind`` is the element's name, ``label`` what the operator recognises it by."""

    kind: str
    label: str
    address: Optional[PciAddress]


@dataclass(frozen=True)
class View:
    arch: str
    window: Optional[int]
    cells: tuple[int, ...]
    initiators: tuple[tuple[str, int], ...]
    controllers: tuple[Controller, ...]
    devices: tuple[Device, ...]
    sources: tuple[str, ...]
    smmu_buses: tuple[int, ...]
    reserves: tuple[str, ...]
    aliases: tuple[str, ...]
    raw_devices: tuple[str, ...]
    loader: str

    def controller(self, index: int) -> Optional[Controller]:
        return next((item for item in self.controllers if item.index == index), None)

    def by_alias(self, alias: str) -> Optional[Controller]:
        return next((item for item in self.controllers if item.alias == alias), None)

    def places(self) -> tuple[PciAddress, ...]:
        """The guest addresses of all devices and controllers that have one."""
        found = [item.address for item in self.devices] + [item.address for item in self.controllers]
        return tuple(address for address in found if address is not None)

    def gpu_ports(self) -> frozenset[int]:
        return frozenset(item.address.bus for item in self.devices if item.kind == "hostdev" and item.address)


# From a plan -----------------------------------------------------------------------------------------------------

def view_of_plan(plan: DomainPlan) -> View:
    window, nodes, initiators = _of_arguments(list(plan.qemu_args))
    if plan.window_by_libvirt:
        window = plan.mmio_window
    by_libvirt = [(hostdev.alias, node) for hostdev in plan.hostdevs for node in parse_cpus(hostdev.nodeset)]
    return View(
        arch=plan.arch,
        window=window,
        cells=tuple([cell.id for cell in plan.cells] + nodes),
        initiators=tuple(by_libvirt + initiators),
        controllers=tuple(_planned_controllers(plan)),
        devices=tuple(_planned_devices(plan)),
        sources=tuple(f"{dev.domain:04x}:{dev.bus:02x}:{dev.slot:02x}.{dev.function}" for dev in plan.hostdevs),
        smmu_buses=tuple(smmu.pci_bus for smmu in plan.smmus),
        reserves=tuple(override.alias for override in plan.overrides
                       if any(name == "pref64-reserve" for name, _value in override.properties)),
        aliases=tuple(_planned_aliases(plan)),
        raw_devices=_raw_devices(list(plan.qemu_args)),
        loader=plan.firmware.path,
    )


def _planned_controllers(plan: DomainPlan) -> Iterator[Controller]:
    yield Controller(0, "pcie-root", "", True, None, None, None)
    for bus in plan.expanders:
        yield Controller(bus.index, "pcie-expander-bus", bus.alias, True, bus.bus_number, bus.cell, bus.address)
    for port in plan.root_ports:
        yield _planned_port(port)


def _planned_port(port: RootPort) -> Controller:
    return Controller(port.index, "pcie-root-port", port.alias, port.hotplug, None, None, port.address)


def _planned_devices(plan: DomainPlan) -> Iterator[Device]:
    for disk in plan.disks:
        yield Device("disk", disk.target, disk.address)
    for interface in plan.interfaces:
        yield Device("interface", interface.mac, interface.address)
    yield Device("controller", "virtio-serial", plan.channel_address)
    yield Device("rng", "rng", plan.rng_address)
    for hostdev in plan.hostdevs:
        yield Device("hostdev", hostdev.alias, hostdev.address)


def _planned_aliases(plan: DomainPlan) -> Iterator[str]:
    yield from (bus.alias for bus in plan.expanders)
    yield from (port.alias for port in plan.root_ports if port.alias)
    yield from (hostdev.alias for hostdev in plan.hostdevs)


# From XML --------------------------------------------------------------------------------------------------------

def view_of_xml(root: ElementTree.Element) -> View:
    arguments = [item.get("value", "") for item in root.iter(f"{QEMU}arg")]
    window, nodes, initiators = _of_arguments(arguments)
    hole = root.find("devices/controller/pcihole64")
    if hole is not None and hole.text:
        window = int(hole.text) * KIB
    kind = root.find("os/type")
    return View(
        arch="" if kind is None else kind.get("arch", ""),
        window=window,
        cells=tuple([int(cell.get("id", "-1")) for cell in root.iterfind("cpu/numa/cell")] + nodes),
        initiators=tuple(list(_xml_initiators(root)) + initiators),
        controllers=tuple(_xml_controllers(root)),
        devices=tuple(_xml_devices(root)),
        sources=tuple(_xml_sources(root)),
        smmu_buses=tuple(int(item.get("pciBus", "-1")) for item in root.iterfind("devices/iommu/driver")),
        reserves=tuple(_xml_reserves(root)),
        aliases=tuple(item.get("name", "") for item in root.iterfind("devices/*/alias")),
        raw_devices=_raw_devices(arguments),
        loader=(root.findtext("os/loader") or ""),
    )


def _xml_initiators(root: ElementTree.Element) -> Iterator[tuple[str, int]]:
    for hostdev in root.iterfind("devices/hostdev"):
        acpi = hostdev.find("acpi")
        for node in parse_cpus("" if acpi is None else acpi.get("nodeset", "")):
            yield _alias(hostdev), node


def _xml_controllers(root: ElementTree.Element) -> Iterator[Controller]:
    for item in root.iterfind("devices/controller[@type='pci']"):
        target = item.find("target")
        number = None if target is None else target.get("busNr")
        node = item.findtext("target/node")
        yield Controller(int(item.get("index", "-1")), item.get("model", ""), _alias(item),
                         target is None or target.get("hotplug") != "off", None if number is None else int(number),
                         None if node is None else int(node), _address(item))


def _xml_devices(root: ElementTree.Element) -> Iterator[Device]:
    for item in root.iterfind("devices/*"):
        if _is_pci(item):
            yield Device(item.tag, _label(item), _address(item))


def _is_pci(item: ElementTree.Element) -> bool:
    """Whether the guest finds the device on PCI; libvirt adds a PS/2 mouse and the board's watchdog on x86."""
    if item.tag not in _PCI_DEVICES or item.get("model") == "none" or item.find("model[@type='none']") is not None:
        return False
    if item.tag == "controller":
        return item.get("type") not in ("pci", "usb", "sata", "ide")
    if item.tag == "disk":
        return item.find("target[@bus='virtio']") is not None
    if item.tag == "input":
        return item.get("bus") == "virtio"
    return item.tag != "watchdog" or item.get("model") == "i6300esb"


def _label(item: ElementTree.Element) -> str:
    for path, key in (("target", "dev"), ("mac", "address")):
        child = item.find(path)
        if child is not None and child.get(key):
            return child.get(key, "")
    return _alias(item) or item.get("type") or item.tag


def _xml_sources(root: ElementTree.Element) -> Iterator[str]:
    for item in root.iterfind("devices/hostdev[@type='pci']/source/address"):
        domain, bus, slot, function = (int(item.get(key, "0"), 16) for key in ("domain", "bus", "slot", "function"))
        yield f"{domain:04x}:{bus:02x}:{slot:02x}.{function}"


def _xml_reserves(root: ElementTree.Element) -> Iterator[str]:
    for device in root.iter(f"{QEMU}device"):
        if any(item.get("name") == "pref64-reserve" for item in device.iter(f"{QEMU}property")):
            yield device.get("alias", "")


def _alias(item: ElementTree.Element) -> str:
    alias = item.find("alias")
    return "" if alias is None else alias.get("name", "")


def _address(item: ElementTree.Element) -> Optional[PciAddress]:
    address = item.find("address[@type='pci']")
    if address is None:
        return None
    return PciAddress(int(address.get("bus", "0"), 16), int(address.get("slot", "0"), 16),
                      int(address.get("function", "0"), 16), address.get("multifunction") == "on")


# From both -------------------------------------------------------------------------------------------------------

def _of_arguments(arguments: list[str]) -> tuple[Optional[int], list[int], list[tuple[str, int]]]:
    """MMIO window (bytes), empty NUMA nodes, and (alias, node) of the initiators on a QEMU command line."""
    window = next((parse_size(match.group(1), "highmem-mmio-size") for match in map(_WINDOW.search, arguments)
                   if match), None)
    nodes = [int(match.group(1)) for match in map(_EMPTY_NODE.fullmatch, arguments) if match]
    initiators = [(match.group(1), int(match.group(2))) for match in map(_INITIATOR.match, arguments) if match]
    return window, nodes, initiators


def _raw_devices(arguments: list[str]) -> tuple[str, ...]:
    return tuple(value for option, value in zip(arguments, arguments[1:]) if option == "-device")
