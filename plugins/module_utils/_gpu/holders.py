# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adapter: who uses a PCI function. Processes by their open files, the console, memory that is online; of a companion
that is no GPU, an interface that is up and a disk that is mounted, swapped to, or part of another one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

from .._core.errors import PassthroughError
from .._core.host import Host
from .model import Holder, PciFunction, Usage
from .numa import online_memory_nodes
from .sysfs import device_path

_INTERESTING = ("/dev/vfio/", "/dev/nvidia", "/dev/dri/", "/dev/snd/", "/dev/fb")
_FRAMEBUFFER_OWNERS = ("BOOTFB", "efifb", "simplefb", "vesafb", "simple-framebuffer")


@dataclass(frozen=True)
class OpenNode:
    """A device node that a process has open."""

    pid: int
    path: str


class UsageReader:
    """Reads /proc and the block devices once and then answers for any number of functions."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.open_nodes = _scan_processes(host)
        self.disks = _disks_in_use(host)

    def usage(self, function: PciFunction, memory_nodes: Iterable[int] = ()) -> Usage:
        """Who uses ``function``; ``memory_nodes`` are the NUMA nodes that its driver may have put online."""
        nodes = _device_nodes(self.host, function)
        holders = tuple(self._holder(item) for item in self.open_nodes if item.path in nodes)
        online = () if function.vfio_device else online_memory_nodes(self.host, memory_nodes)
        disks = tuple(name for name, place in self.disks.items() if f"/{function.address}/" in place)
        return Usage(holders, _has_console(self.host, function), online,
                     interfaces=_interfaces_up(self.host, function), disks=disks)

    def _holder(self, item: OpenNode) -> Holder:
        command = self.host.read_text(f"/proc/{item.pid}/comm") or "unknown"
        cmdline = self.host.read_bytes(f"/proc/{item.pid}/cmdline") or b""
        return Holder(item.pid, command, item.path, vm_name(cmdline))


def persistence_mode(host: Host, function: PciFunction) -> bool:
    """Whether NVIDIA's driver keeps the GPU initialised without a daemon, which no file shows: its own tool is asked.

    False where the tool is missing or does not answer: the unbind is bounded in time anyway.
    """
    if function.driver != "nvidia" or host.which("nvidia-smi") is None:
        return False
    try:
        answer = host.run(("nvidia-smi", f"--id={function.address}", "--query-gpu=persistence_mode",
                           "--format=csv,noheader"), timeout=30, ok=())
    except PassthroughError:
        return False
    return answer.stdout.strip() == "Enabled"


def vm_name(cmdline: bytes) -> Optional[str]:
    """Name of the virtual machine in a QEMU command line as /proc has it (``-name guest=NAME,...``), or None."""
    arguments = cmdline.decode("utf-8", "replace").split("\0")
    is_qemu = os.path.basename(arguments[0]).startswith(("qemu-system", "qemu-kvm", "kvm"))
    if not is_qemu or "-name" not in arguments[:-1]:
        return None
    fields = arguments[arguments.index("-name") + 1].split(",")
    named = [field[len("guest="):] for field in fields if field.startswith("guest=")]
    return named[0] if named else fields[0]


def _scan_processes(host: Host) -> tuple[OpenNode, ...]:
    found = set()
    own = os.getpid()
    for name in host.listdir("/proc"):
        if not name.isdigit() or int(name) == own:
            continue
        directory = host.path(f"/proc/{name}/fd")
        try:
            descriptors = os.listdir(directory)
        except OSError:
            continue  # the process ended, or is a kernel thread
        for descriptor in descriptors:
            try:
                target = os.readlink(f"{directory}/{descriptor}")
            except OSError:
                continue
            if target.startswith(_INTERESTING):
                found.add(OpenNode(int(name), target))
    return tuple(sorted(found, key=lambda item: (item.pid, item.path)))


def _device_nodes(host: Host, function: PciFunction) -> frozenset[str]:
    """The device nodes through which this function can be used."""
    nodes = set()
    if function.group is not None:
        nodes.add(f"/dev/vfio/{function.group}")
    if function.vfio_device is not None:
        nodes.add(f"/dev/vfio/devices/{function.vfio_device}")
    nodes.update(f"/dev/dri/{name}" for name in host.listdir(device_path(function.address, "drm")))
    nodes.update(f"/dev/{name}" for name in host.listdir(device_path(function.address, "graphics")))
    sound = device_path(function.address, "sound")
    for card in host.listdir(sound):
        nodes.update(f"/dev/snd/{name}" for name in host.listdir(f"{sound}/{card}"))
    minor = _nvidia_minor(host, function.address)
    if minor is not None:
        nodes.add(f"/dev/nvidia{minor}")
    return frozenset(nodes)


def _interfaces_up(host: Host, function: PciFunction) -> tuple[str, ...]:
    """Names of the function's network interfaces that are up: the host may be reached through one."""
    net = device_path(function.address, "net")
    return tuple(name for name in sorted(host.listdir(net)) if host.read_text(f"{net}/{name}/operstate") == "up")


def _disks_in_use(host: Host) -> dict[str, str]:
    """Block devices that are mounted or swapped to, or that LVM, dm or md have: name -> place in /sys/devices, whose
    path has the address of each PCI function that it is behind."""
    used = {line.split()[0] for path in ("/proc/mounts", "/proc/swaps")
            for line in (host.read_text(path) or "").splitlines() if line.strip()}
    return {name: os.path.realpath(host.path(f"/sys/class/block/{name}"))
            for name in sorted(host.listdir("/sys/class/block"))
            if f"/dev/{name}" in used or host.listdir(f"/sys/class/block/{name}/holders")}


def _nvidia_minor(host: Host, address: str) -> Optional[str]:
    """Minor number of NVIDIA's own driver for a function, from its file in /proc."""
    text = host.read_text(f"/proc/driver/nvidia/gpus/{address}/information") or ""
    for line in text.splitlines():
        key, _colon, value = line.partition(":")
        if key.strip() == "Device Minor":
            return value.strip()
    return None


def _has_console(host: Host, function: PciFunction) -> bool:
    """A framebuffer of the function itself, or one that firmware left in a BAR of it."""
    if host.listdir(device_path(function.address, "graphics")):
        return True
    for line in (host.read_text("/proc/iomem") or "").splitlines():
        window, _colon, owner = line.strip().partition(" : ")
        if owner in _FRAMEBUFFER_OWNERS:
            start = int(window.split("-")[0], 16)
            if any(bar.start <= start < bar.start + bar.size for bar in function.bars if not bar.io):
                return True
    return False
