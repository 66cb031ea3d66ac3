# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""A domain's twin, which starts on any machine: the same controllers, addresses, NUMA nodes, firmware and window, and
in the place of each GPU a test device with a BAR of the same size. What the twin leaves out or changes is listed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

Element = ElementTree.Element
QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
ElementTree.register_namespace("qemu", QEMU[1:-1])

CELL_MIB = 192
DISK = "/work/twins/disk.img"
CONSOLE = {"aarch64": "ttyAMA0", "x86_64": "ttyS0"}
# A function that the planned GPU does not have: room for the smaller of its two memory BARs.
SECOND_BAR_FUNCTION = 7
# QEMU's own x86 processor has 40 address bits, of which the firmware gives an eighth (128 GiB) to 64-bit BARs.
X86_BAR = 8 << 30
_DROPPED = ("memtune", "numatune", "cputune", "iommufd", "memoryBacking", "currentMemory")


@dataclass(frozen=True)
class Twin:
    """``cells`` are the guest's CPU cells: (cell, CPUs of the twin); ``bars`` goes by alias of the planned GPU: bytes
    of each BAR, the largest first. ``left_out`` has a sentence for each difference to the domain."""

    xml: str
    cells: tuple[tuple[int, str], ...]
    bars: Mapping[str, tuple[int, ...]]
    left_out: tuple[str, ...]


class TwinMaker:
    """Makes a twin of one domain; ``bars`` are the sizes of the BARs by GPU alias."""

    def __init__(self, xml: str, bars: Mapping[str, tuple[int, ...]], log: str) -> None:
        self.root = ElementTree.fromstring(xml)
        self.devices = self._child(self.root, "devices")
        self.arch = str(self._child(self.root, "os/type").get("arch"))
        self.accelerated = self.root.find("devices/iommu/driver[@accel]") is not None
        self.wanted = bars
        self.log = log
        self.bars: dict[str, tuple[int, ...]] = {}
        self.left_out: list[str] = []

    @staticmethod
    def _child(parent: Element, path: str) -> Element:
        found = parent.find(path)
        assert found is not None, path
        return found

    def make(self) -> Twin:
        self._processor()
        cells = tuple(self._cells())
        self._boot()
        self._disks()
        self._interfaces()
        self._console()
        self._drop(self.devices, "vsock", "needs a device of the host")
        self._smmus()
        self._gpus()
        return Twin(ElementTree.tostring(self.root, encoding="unicode"), cells, self.bars, tuple(self.left_out))

    def _drop(self, parent: Element, path: str, why: str) -> None:
        found = parent.findall(path)
        for item in found:
            parent.remove(item)
        if found:
            self.left_out.append(f"{path}: {why}")

    def _processor(self) -> None:
        self.root.set("type", "qemu")
        for tag in _DROPPED:
            self._drop(self.root, tag, "belongs to the host's memory and processors")
        cpu = self._child(self.root, "cpu")
        self.left_out.append(f"cpu {cpu.get('mode')}: a processor that QEMU emulates")
        for tag in ("topology", "model", "cache", "maxphysaddr"):
            for item in cpu.findall(tag):
                cpu.remove(item)
        cpu.attrib.clear()
        if self.arch == "aarch64":
            cpu.attrib.update(mode="custom", match="exact", check="none")
            model = ElementTree.Element("model", {"fallback": "forbid"})
            model.text = "neoverse-n1"
            cpu.insert(0, model)
        else:
            cpu.set("mode", "maximum")

    def _cells(self) -> Iterator[tuple[int, str]]:
        count = 0
        for cell in self.root.iterfind("cpu/numa/cell"):
            if cell.get("cpus"):
                cell.attrib.update(cpus=str(count), memory=str(CELL_MIB), unit="MiB")
                yield int(cell.get("id", "")), str(count)
                count += 1
        for tag, text, attributes in (("memory", str(CELL_MIB * count), {"unit": "MiB"}), ("vcpu", str(count), {})):
            for item in self.root.findall(tag):
                self.root.remove(item)
            ElementTree.SubElement(self.root, tag, attributes).text = text
        self.left_out.append(f"memory and vcpu: {CELL_MIB} MiB and one processor for each CPU cell")

    def _boot(self) -> None:
        system = self._child(self.root, "os")
        for tag in ("kernel", "initrd", "cmdline"):
            for item in system.findall(tag):
                system.remove(item)
        for tag, text in (("kernel", f"/work/twins/{self.arch}.kernel"), ("initrd", f"/work/twins/{self.arch}.initrd"),
                          ("cmdline", f"console={CONSOLE[self.arch]} quiet panic=-1")):
            ElementTree.SubElement(system, tag).text = text
        # VMs of the same name follow each other here, with firmware of another kind
        self._child(system, "nvram").text = f"{self.log}.nvram"

    def _disks(self) -> None:
        for disk in self.devices.findall("disk"):
            disk.set("type", "file")
            source, driver = self._child(disk, "source"), self._child(disk, "driver")
            source.attrib.clear()
            source.set("file", DISK)
            for name in ("cache", "io", "iothread"):
                driver.attrib.pop(name, None)
            driver.set("type", "raw")
            ElementTree.SubElement(disk, "shareable")
            self.left_out.append(f"disk {self._child(disk, 'target').get('dev')}: an empty file, without cache and io")
        self._drop(self.root, "iothreads", "no disk uses them in the twin")

    def _interfaces(self) -> None:
        for interface in self.devices.findall("interface"):
            interface.set("type", "user")
            for tag in ("source", "driver"):
                for item in interface.findall(tag):
                    interface.remove(item)
            self.left_out.append(f"interface {self._child(interface, 'mac').get('address')}: QEMU's own network")

    def _console(self) -> None:
        serial = self._child(self.devices, "serial")
        serial.set("type", "file")
        for item in serial.findall("source"):
            serial.remove(item)
        ElementTree.SubElement(serial, "source", {"path": self.log})

    def _smmus(self) -> None:
        for driver in self.devices.iterfind("iommu/driver"):
            bus = driver.get("pciBus", "")
            driver.attrib.clear()
            driver.set("pciBus", bus)
        if self.accelerated:
            self.left_out.append("iommu: an emulated SMMUv3 on the same bus, because accel needs KVM and a real one")

    def _gpus(self) -> None:
        command = self.root.find(f"{QEMU}commandline")
        if command is None:
            command = ElementTree.SubElement(self.root, f"{QEMU}commandline")
        initiators = 0
        for hostdev in self.devices.findall("hostdev"):
            alias = str(self._child(hostdev, "alias").get("name"))
            for device in self._stand_ins(hostdev, alias):
                self._argument(command, "-device", json.dumps(device))
            acpi = hostdev.find("acpi")
            for node in _numbers("" if acpi is None else acpi.get("nodeset", "")):
                # before libvirt's own JSON objects nothing can be missing: pci-dev is looked up when ACPI is built
                self._argument(command, "-object",
                               f"acpi-generic-initiator,id=twin{initiators},pci-dev={alias},node={node}")
                initiators += 1
            self.devices.remove(hostdev)
            self.left_out.append(f"hostdev {alias}: pci-testdev with BARs of {self.bars.get(alias, ())} bytes")

    def _stand_ins(self, hostdev: Element, alias: str) -> Iterator[dict[str, object]]:
        place = self._child(hostdev, "address[@type='pci']")
        slot, function = int(place.get("slot", "0"), 16), int(place.get("function", "0"), 16)
        bars = sorted((size for size in self.wanted.get(alias, ()) if size >= 1 << 30), reverse=True)
        # one where a guest with an accelerated SMMU keeps what the firmware has assigned: this guest does not
        bars = bars[:1] if self.accelerated or self.arch == "x86_64" else bars[:2]
        if self.arch == "x86_64":
            bars = [min(size, X86_BAR) for size in bars]
        self.bars[alias] = tuple(bars)
        bus = self._bus(int(place.get("bus", "0"), 16))
        common = {"driver": "pci-testdev", "bus": bus}
        yield {**common, "id": alias, "addr": f"{slot:x}.{function:x}", **({"membar": bars[0]} if bars else {}),
               **({"multifunction": True} if len(bars) > 1 or place.get("multifunction") == "on" else {})}
        if len(bars) > 1:
            yield {**common, "id": f"{alias}-second", "addr": f"{slot:x}.{SECOND_BAR_FUNCTION}", "membar": bars[1]}

    def _bus(self, index: int) -> str:
        controller = self._child(self.devices, f"controller[@type='pci'][@index='{index}']")
        alias = controller.find("alias")
        return f"pci.{index}" if alias is None else str(alias.get("name"))

    @staticmethod
    def _argument(command: Element, *words: str) -> None:
        for word in words:
            ElementTree.SubElement(command, f"{QEMU}arg", {"value": word})


def _numbers(nodeset: str) -> Iterator[int]:
    for part in filter(None, nodeset.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


# What the guest printed ------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class GuestDevice:
    """``path`` are the addresses below the PCI ``root`` (pci0000:21), the device's own last; ``bars`` are (start, size)
    by number, in bytes."""

    root: str
    path: tuple[str, ...]
    vendor: int
    device: int
    kind: int
    node: int
    bars: Mapping[int, tuple[int, int]]

    @property
    def address(self) -> str:
        return self.path[-1]


@dataclass(frozen=True)
class Guest:
    """``cpus`` are CPU lists by the kernel's node number; ``initiators`` are (ACPI proximity domain, PCI address);
    ``domains`` all proximity domains of the SRAT; ``distances`` the SLIT. ``reads`` are what was asked for, by PCI
    address, BAR and offset: eight bytes as they lie in memory."""

    devices: tuple[GuestDevice, ...]
    cpus: Mapping[int, str]
    iommus: int
    domains: frozenset[int]
    initiators: frozenset[tuple[int, str]]
    distances: tuple[tuple[int, ...], ...]
    reads: Mapping[tuple[str, int, int], bytes]


def read_guest(text: str) -> Guest:
    """Reads the lines of guest-init."""
    words = [line.split()[0:] for line in re.findall(r"^GUEST-(.*?)\r?$", text, re.M)]
    assert ["DONE"] in words, "the guest did not print everything"
    tables = {item[1]: bytes.fromhex(item[2]) for item in words if item[0] == "TABLE"}
    bars: dict[str, dict[int, tuple[int, int]]] = {}
    for item in words:
        if item[0] == "BAR":
            first, last = int(item[3], 16), int(item[4], 16)
            bars.setdefault(item[1], {})[int(item[2])] = (first, last - first + 1)
    devices = []
    for item in words:
        if item[0] == "PCI":
            root, *path = item[1].split("/")
            vendor, device, kind = (int(value, 16) for value in item[2:5])
            devices.append(GuestDevice(root, tuple(path), vendor, device, kind, int(item[5]),
                                       bars.get(path[-1], {})))
    domains, initiators = _read_srat(tables["SRAT"])
    nodes = {int(item[1][4:]): item[2] if len(item) > 2 else "" for item in words if item[0] == "NODE"}
    reads = {}
    for item in words:
        if item[0] == "READ":
            bar, offset = item[2].split(":")
            reads[item[1], int(bar), int(offset)] = int(item[3], 16).to_bytes(8, "little")
    return Guest(tuple(devices), nodes, sum(item[0] == "IOMMU" for item in words), domains, initiators,
                 _read_slit(tables.get("SLIT", b"")), reads)


def _read_srat(table: bytes) -> tuple[frozenset[int], frozenset[tuple[int, str]]]:
    """ACPI 6.5, 5.2.16: memory (1), x2APIC (2), GICC (3) and generic-initiator (5) affinity; CPUs of x86 are type 0."""
    domains, initiators, place = set(), set(), 48
    while place < len(table):
        kind, length = table[place], table[place + 1]
        body = table[place:place + length]
        if kind == 0:
            domains.add(body[2] | int.from_bytes(body[9:12], "little") << 8)
        elif kind in (1, 3):
            # QEMU describes holes of the memory map with no flag set
            if kind == 3 or int.from_bytes(body[28:32], "little") & 1:
                domains.add(int.from_bytes(body[2:6], "little"))
        elif kind == 2:
            domains.add(int.from_bytes(body[4:8], "little"))
        elif kind == 5:
            domain = int.from_bytes(body[4:8], "little")
            segment, bdf = int.from_bytes(body[8:10], "little"), int.from_bytes(body[10:12], "little")
            domains.add(domain)
            # the bus is in the low byte
            initiators.add((domain, f"{segment:04x}:{bdf & 255:02x}:{bdf >> 11:02x}.{bdf >> 8 & 7}"))
        place += length
    return frozenset(domains), frozenset(initiators)


def _read_slit(table: bytes) -> tuple[tuple[int, ...], ...]:
    """ACPI 6.5, 5.2.17; a guest with one node has no such table."""
    count = int.from_bytes(table[36:44], "little")
    return tuple(tuple(table[44 + row * count:44 + (row + 1) * count]) for row in range(count))
