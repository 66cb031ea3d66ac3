# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Value objects: a PCI function, its BARs, its IOMMU group, and who holds it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from .._core.errors import PassthroughError

NVIDIA = "10de"
_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")

# PCI class code, upper 16 bits; PCI Code and ID Assignment Specification
_CLASS_DISPLAY = 0x03
_CLASS_AUDIO = 0x0403
_CLASS_USB = 0x0C03
_CLASS_OTHER_SERIAL = 0x0C80
_CLASS_OTHER_BRIDGE = 0x0680
# Host, ISA, PCI-to-PCI and semi-transparent bridges need no driver for a group to be viable. NVSwitch has the class of
# an "other bridge", does DMA, and is therefore no bridge here.
_CLASS_BRIDGES = (0x0600, 0x0601, 0x0604, 0x0609)
# Classes that mean something else than their name on NVIDIA's devices.
_NVIDIA_KINDS = {_CLASS_OTHER_BRIDGE: "nvswitch", _CLASS_OTHER_SERIAL: "usb-c"}

# IORESOURCE_* of include/linux/ioport.h, the third column of the sysfs file "resource"
_RESOURCE_IO = 0x100
_RESOURCE_PREFETCH = 0x2000
_RESOURCE_MEM_64 = 0x100000


def parse_address(text: str) -> str:
    """The lower-case full PCI address (``dddd:bb:dd.f``). Raises PassthroughError for every other form."""
    address = text.strip().lower()
    if not _ADDRESS.fullmatch(address):
        raise PassthroughError(f"{text!r} is not a PCI address: give the full form with domain, such as 0009:01:00.0.")
    return address


@dataclass(frozen=True)
class Bar:
    """One memory or I/O window of a function. ``start`` and ``size`` in bytes."""

    index: int
    start: int
    size: int
    flags: int

    @property
    def prefetchable(self) -> bool:
        return bool(self.flags & _RESOURCE_PREFETCH)

    @property
    def bits64(self) -> bool:
        return bool(self.flags & _RESOURCE_MEM_64)

    @property
    def io(self) -> bool:
        return bool(self.flags & _RESOURCE_IO)


@dataclass(frozen=True)
class PciIdentity:
    """What tells one function from another. ``class_code`` has 24 bits."""

    address: str
    vendor: str
    device: str
    class_code: int

    @property
    def kind(self) -> str:
        """What the function is to somebody who passes a GPU through: gpu, audio, usb, usb-c (the controller of the
        connector, UCSI), nvswitch, bridge or other."""
        subclass = self.class_code >> 8
        if subclass >> 8 == _CLASS_DISPLAY:
            return "gpu"
        if subclass in _CLASS_BRIDGES:
            return "bridge"
        if self.vendor == NVIDIA and subclass in _NVIDIA_KINDS:
            return _NVIDIA_KINDS[subclass]
        return {_CLASS_AUDIO: "audio", _CLASS_USB: "usb"}.get(subclass, "other")

    @property
    def is_nvidia_gpu(self) -> bool:
        return self.vendor == NVIDIA and self.kind == "gpu"

    @property
    def vendor_device(self) -> str:
        return f"{self.vendor}:{self.device}"

    def describe(self) -> str:
        """Address, ids and kind, for messages."""
        return f"{self.address} ({self.vendor_device}, {self.kind})"


@dataclass(frozen=True)
class Link:
    """The PCIe link above a function: transfers a second in units of 10^9 for each lane, and lanes. An idle link may be
    slower than it can be; ``max_*`` is what the function could have."""

    speed: float
    width: int
    max_speed: float
    max_width: int


@dataclass(frozen=True)
class PciFunction:
    """One PCI function as sysfs shows it. ``group`` is None while the kernel has put it into no IOMMU group, ``link``
    where it has no PCIe link, as a function within the processor's own complex."""

    identity: PciIdentity
    subsystem: str
    numa_node: int
    group: Optional[int]
    driver: Optional[str]
    driver_override: Optional[str]
    vfio_device: Optional[str]
    modalias: str
    bars: tuple[Bar, ...]
    reset_methods: tuple[str, ...]
    boot_vga: bool
    link: Optional[Link] = None

    @property
    def address(self) -> str:
        return self.identity.address


@dataclass(frozen=True)
class Holder:
    """A process that has a device node of the function open; ``vm`` is the libvirt name where it is a QEMU."""

    pid: int
    command: str
    path: str
    vm: Optional[str] = None

    def describe(self) -> str:
        who = f"virtual machine {self.vm}" if self.vm else self.command
        return f"{who} (pid {self.pid}) holds {self.path}"


@dataclass(frozen=True)
class Usage:
    """Everything that stands against taking a function away from its present driver."""

    holders: tuple[Holder, ...] = ()
    console: bool = False
    online_memory_nodes: tuple[int, ...] = ()
    persistence_mode: bool = False
    interfaces: tuple[str, ...] = ()
    disks: tuple[str, ...] = ()

    @property
    def busy(self) -> bool:
        return bool(self.reasons())

    def reasons(self) -> list[str]:
        """One clause for each reason."""
        found = [holder.describe() for holder in self.holders]
        if self.console:
            found.append("the console framebuffer is on it")
        if self.online_memory_nodes:
            nodes = ", ".join(str(node) for node in self.online_memory_nodes)
            found.append(f"its memory is online as NUMA node {nodes}")
        found += [f"its network interface {name} is up" for name in self.interfaces]
        found += [f"its disk {name} is in use" for name in self.disks]
        if self.persistence_mode:
            found.append("its persistence mode is on (nvidia-smi --persistence-mode=0 ends it)")
        return found
