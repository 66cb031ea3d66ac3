# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Value objects of a libvirt domain: what is asked for, what the host offers, and the plan that the template prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40


# What is asked for -----------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class DiskRequest:
    path: str
    format: str
    target: str


@dataclass(frozen=True)
class NetworkRequest:
    """``kind`` is "network" (a libvirt network) or "bridge" (a bridge of the host)."""

    kind: str
    name: str
    mac: str


@dataclass(frozen=True)
class DirectBoot:
    """Kernel and initrd are files of the host; the firmware starts them instead of looking for a disk."""

    path: str
    initrd: str
    cmdline: str


@dataclass(frozen=True)
class VmRequest:
    """A checked description. ``memory`` and ``hugepages`` in bytes. One of ``gpu_addresses`` and ``gpu_count`` is
    empty."""

    name: str
    uuid: str
    virt_type: str
    profile: str
    vcpus: int
    memory: int
    hugepages: Optional[int]
    gpu_addresses: tuple[str, ...]
    gpu_count: int
    disks: tuple[DiskRequest, ...]
    networks: tuple[NetworkRequest, ...]
    pin: bool
    host_nodes: tuple[int, ...]
    loader: str
    nvram_template: str
    boot: Optional[DirectBoot]
    serial_log: str
    extra_xml: str
    generic_initiators: bool
    cmdqv: bool


# What the host offers --------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Firmware:
    path: str
    nvram_template: str
    secure_boot: bool = False


@dataclass(frozen=True)
class HostNode:
    """A NUMA node of the host; ``distances`` are (node, SLIT value), empty where the host does not tell."""

    id: int
    cpus: tuple[int, ...]
    distances: tuple[tuple[int, int], ...]

    def distance_to(self, node: int) -> Optional[int]:
        return dict(self.distances).get(node)


@dataclass(frozen=True)
class HostView:
    """The part of host_info that decides about a domain. ``features`` are the names of what libvirt, QEMU and the
    kernel can do; ``hugepages`` are page sizes in bytes."""

    known: bool
    arch: str
    libvirt: str
    qemu: str
    emulator: str
    features: frozenset[str]
    nodes: tuple[HostNode, ...]
    hugepages: tuple[int, ...]
    firmware: tuple[Firmware, ...]
    cacheable_memory: Optional[bool]

    def node(self, node_id: int) -> Optional[HostNode]:
        return next((node for node in self.nodes if node.id == node_id), None)

    def has(self, *features: str) -> bool:
        return all(feature in self.features for feature in features)


@dataclass(frozen=True)
class Gpu:
    """A GPU with the functions of its slot that travel with it. ``bars`` are the sizes (bytes) of its 64-bit BARs as
    a guest sees them and ``bars_source`` says who told."""

    address: str
    product: str
    coherent: bool
    numa_node: int
    initiator_nodes: tuple[int, ...]
    functions: tuple[str, ...]
    bars: tuple[int, ...]
    bars_source: str
    holders: tuple[str, ...] = ()


# The plan --------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class PciAddress:
    """Where a device sits in the guest; ``bus`` is the index of the controller that provides the bus."""

    bus: int
    slot: int
    function: int = 0
    multifunction: bool = False


@dataclass(frozen=True)
class Cell:
    """A NUMA cell of the guest: with CPUs and memory (bytes), or empty (a generic initiator's). ``host_node`` is the
    node of the host that it stands for. ``distances`` are for the libvirt element, in cell order."""

    id: int
    cpus: str
    memory: int
    host_node: Optional[int]
    distances: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class RootPort:
    index: int
    chassis: int
    port: int
    hotplug: bool
    alias: str
    address: PciAddress


@dataclass(frozen=True)
class ExpanderBus:
    """A pxb-pcie: the PCI root of one GPU, with the NUMA cell whose CPUs are near."""

    index: int
    bus_number: int
    cell: int
    alias: str
    address: PciAddress


@dataclass(frozen=True)
class Disk:
    path: str
    block: bool
    format: str
    target: str
    address: PciAddress


@dataclass(frozen=True)
class Interface:
    kind: str
    name: str
    mac: str
    queues: int
    vhost: bool
    address: PciAddress


@dataclass(frozen=True)
class Hostdev:
    """A function of the host given to the guest. ``nodeset`` is the libvirt nodeset of its generic initiators, empty
    where the command line makes them or there are none."""

    domain: int
    bus: int
    slot: int
    function: int
    alias: str
    address: PciAddress
    nodeset: str = ""
    iommufd: bool = False


@dataclass(frozen=True)
class Smmu:
    """An accelerated SMMUv3 on the expander bus with this controller index; ``cmdqv`` gives the guest command queues of
    the hardware, None leaves that to QEMU."""

    pci_bus: int
    cmdqv: Optional[bool] = None


@dataclass(frozen=True)
class Override:
    """QEMU properties of a libvirt device: (name, value), unsigned."""

    alias: str
    properties: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class CpuModel:
    """``mode`` and, for mode "custom", the model's name."""

    mode: str
    model: str = ""


@dataclass(frozen=True)
class Pinning:
    """1:1 pins (vCPU, host CPU), the CPUs for QEMU's own threads, and memory nodes (cell, host node)."""

    vcpus: tuple[tuple[int, int], ...] = ()
    emulator: str = ""
    iothread: str = ""
    memory: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Feature:
    """A way that was taken: ``used`` names it, ``why`` says what made us take it."""

    name: str
    used: str
    why: str


@dataclass(frozen=True)
class DomainPlan:
    """Everything that the template prints, decided. Sizes in bytes."""

    name: str
    uuid: str
    virt_type: str
    arch: str
    machine: str
    profile: str
    emulator: str
    memory: int
    vcpus: int
    iothreads: int
    allocation_threads: int
    hugepages: Optional[int]
    cpu: CpuModel
    sockets: int
    ras: bool
    firmware: Firmware
    nvram: str
    boot: Optional[DirectBoot]
    serial_log: str
    extra_xml: str
    iommufd: bool
    mmio_window: Optional[int]
    window_by_libvirt: bool
    cells: tuple[Cell, ...]
    pinning: Pinning
    expanders: tuple[ExpanderBus, ...]
    root_ports: tuple[RootPort, ...]
    disks: tuple[Disk, ...]
    interfaces: tuple[Interface, ...]
    hostdevs: tuple[Hostdev, ...]
    smmus: tuple[Smmu, ...]
    channel_address: PciAddress
    rng_address: PciAddress
    qemu_args: tuple[str, ...]
    overrides: tuple[Override, ...]
    features: tuple[Feature, ...]
    warnings: tuple[str, ...]
