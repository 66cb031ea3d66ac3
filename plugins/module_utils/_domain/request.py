# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the ``vm`` option to a checked VmRequest. Everything that a user can get wrong is refused here, by name."""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import Any, Optional
from xml.etree import ElementTree

from .._core.errors import PassthroughError
from .model import GIB, KIB, MIB, TIB, DirectBoot, DiskRequest, NetworkRequest, VmRequest

# A fixed namespace: the same name gives the same uuid, so that a second run changes nothing.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "passthrough.nvgrace.invalid")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]{0,62}")
_LIKE_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_NETWORK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_TARGET = re.compile(r"vd[a-z]")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")
_SIZE = re.compile(r"([0-9]+)\s*(B|KiB|MiB|GiB|TiB|K|M|G|T)?")
_UNITS = {"": 1, "B": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB}

MAX_VCPUS = 512
MAX_MEMORY = 16 * TIB
MAX_DISKS = 16
MAX_NETWORKS = 8
MAX_GPUS = 8

PROFILES = ("auto", "native", "no-accel", "compat", "x86")


def parse_size(value: Any, what: str) -> int:
    """Bytes from an integer or from text such as "4GiB" or "512M"; units are powers of 1024."""
    match = _SIZE.fullmatch(str(value).strip())
    if isinstance(value, bool) or match is None:
        raise PassthroughError(f"{what} is {value!r}: give bytes, or a number with KiB, MiB, GiB or TiB.")
    return int(match.group(1)) * _UNITS[(match.group(2) or "")[:1]]


def parse_vm(vm: dict[str, Any]) -> VmRequest:
    """Raises PassthroughError with one sentence for the first value that cannot be used."""
    name = parse_name(vm.get("name"))
    addresses, count = _gpus(name, vm.get("gpus"))
    hugepages = vm.get("hugepages")
    firmware = vm.get("firmware") or {}
    return VmRequest(
        name=name,
        uuid=_uuid(name, vm.get("uuid")),
        virt_type=_choice(name, vm, "type", ("kvm", "qemu")),
        profile=_choice(name, vm, "profile", PROFILES),
        vcpus=_integer(name, vm, "vcpus", 1, MAX_VCPUS),
        memory=_memory(name, vm.get("memory")),
        hugepages=None if hugepages is None else parse_size(hugepages, f"hugepages of VM {name}"),
        gpu_addresses=addresses,
        gpu_count=count,
        disks=_disks(name, vm.get("disks") or []),
        networks=_networks(name, vm.get("networks") or []),
        pin=_choice(name, vm, "pinning", ("auto", "none")) == "auto",
        host_nodes=_host_nodes(name, vm.get("host_nodes") or []),
        loader=_path(name, firmware, "loader"),
        nvram_template=_path(name, firmware, "nvram_template"),
        boot=_boot(name, vm.get("kernel")),
        serial_log=_path(name, vm, "serial_log"),
        extra_xml=_extra_xml(name, vm.get("extra_xml") or ""),
        generic_initiators=_choice(name, vm, "generic_initiators", ("auto", "none")) == "auto",
        cmdqv=_cmdqv(name, vm.get("cmdqv"), bool(hugepages)),
    )


def parse_name(name: Any) -> str:
    """A name that is safe in XML, in a file name and on a command line, and that virsh cannot take for an id."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None or _LIKE_UUID.fullmatch(name):
        raise PassthroughError(f"{name!r} cannot be the name of a VM: use letters, digits, '.', '_', '+' and '-', "
                               "63 at most, a letter first, and no UUID.")
    return name


def default_mac(name: str, index: int) -> str:
    """A MAC address in QEMU's range that depends on the VM's name and the interface's position only."""
    digest = hashlib.sha256(f"{name}/{index}".encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def _uuid(name: str, value: Optional[str]) -> str:
    if not value:
        return str(uuid.uuid5(_NAMESPACE, name))
    try:
        return str(uuid.UUID(str(value)))
    except ValueError as error:
        raise PassthroughError(f"uuid of VM {name} is {value!r}, which is not a UUID.") from error


def _choice(name: str, vm: dict[str, Any], key: str, choices: tuple[str, ...]) -> str:
    """The first choice is the default."""
    value = vm.get(key) or choices[0]
    if value not in choices:
        raise PassthroughError(f"{key} of VM {name} is {value!r}: choose one of {', '.join(choices)}.")
    return str(value)


def _integer(name: str, vm: dict[str, Any], key: str, low: int, high: int) -> int:
    value = vm.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise PassthroughError(f"{key} of VM {name} is {value!r}: give a number from {low} to {high}.")
    return value


def _memory(name: str, value: Any) -> int:
    memory = parse_size(value, f"memory of VM {name}")
    if memory % MIB or not 128 * MIB <= memory <= MAX_MEMORY:
        raise PassthroughError(f"memory of VM {name} is {memory} bytes: give a multiple of 1 MiB from 128 MiB to "
                               "16 TiB.")
    return memory


def _cmdqv(name: str, value: Any, hugepages: bool) -> bool:
    """The queues are read by the hardware by physical address, so that normal pages are not enough."""
    if value is not None and not isinstance(value, bool):
        raise PassthroughError(f"cmdqv of VM {name} is {value!r}: give true or false.")
    if value and not hugepages:
        raise PassthroughError(f"VM {name} asks for cmdqv without hugepages: the hardware's command queues need memory "
                               "that is contiguous.")
    return bool(value)


def _gpus(name: str, value: Any) -> tuple[tuple[str, ...], int]:
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= MAX_GPUS:
            raise PassthroughError(f"gpus of VM {name} is {value}: give 1 to {MAX_GPUS}, or a list of addresses.")
        return (), value
    if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= MAX_GPUS:
        raise PassthroughError(f"gpus of VM {name} is {value!r}: give a list of 1 to {MAX_GPUS} addresses such as "
                               "0009:01:00.0, or a number.")
    addresses = tuple(str(item).lower() for item in value)
    for address in addresses:
        if _ADDRESS.fullmatch(address) is None:
            raise PassthroughError(f"gpus of VM {name} lists {address!r}, which is not a PCI address such as "
                                   "0009:01:00.0.")
    if len(set(addresses)) != len(addresses):
        raise PassthroughError(f"gpus of VM {name} lists an address twice.")
    return addresses, 0


def _disks(name: str, items: list[dict[str, Any]]) -> tuple[DiskRequest, ...]:
    if len(items) > MAX_DISKS:
        raise PassthroughError(f"VM {name} has {len(items)} disks: {MAX_DISKS} at most.")
    disks = []
    for position, item in enumerate(items):
        image_format = item.get("format") or "raw"
        target = item.get("target") or "vd" + chr(ord("a") + position)
        if image_format not in ("raw", "qcow2"):
            raise PassthroughError(f"A disk of VM {name} has the format {image_format!r}: choose raw or qcow2.")
        if _TARGET.fullmatch(target) is None:
            raise PassthroughError(f"A disk of VM {name} has the target {target!r}: give vda to vdz.")
        disks.append(DiskRequest(_path(name, item, "path", required=True), image_format, target))
    if len({disk.target for disk in disks}) != len(disks):
        raise PassthroughError(f"Two disks of VM {name} have the same target.")
    return tuple(disks)


def _networks(name: str, items: list[dict[str, Any]]) -> tuple[NetworkRequest, ...]:
    if len(items) > MAX_NETWORKS:
        raise PassthroughError(f"VM {name} has {len(items)} networks: {MAX_NETWORKS} at most.")
    networks = []
    for position, item in enumerate(items):
        kinds = [kind for kind in ("network", "bridge") if item.get(kind)]
        if len(kinds) != 1:
            raise PassthroughError(f"A network of VM {name} needs either network or bridge.")
        source = str(item[kinds[0]])
        if _NETWORK.fullmatch(source) is None:
            raise PassthroughError(f"A network of VM {name} is called {source!r}, which libvirt does not accept.")
        mac = str(item.get("mac") or default_mac(name, position)).lower()
        if _MAC.fullmatch(mac) is None or int(mac[:2], 16) & 1:
            raise PassthroughError(f"A network of VM {name} has the MAC address {mac!r}, which is not a unicast one.")
        networks.append(NetworkRequest(kinds[0], source, mac))
    if len({network.mac for network in networks}) != len(networks):
        raise PassthroughError(f"Two networks of VM {name} have the same MAC address.")
    return tuple(networks)


def _host_nodes(name: str, items: Any) -> tuple[int, ...]:
    if not isinstance(items, (list, tuple)) or not all(
            isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in items):
        raise PassthroughError(f"host_nodes of VM {name} is {items!r}: give a list of NUMA node numbers.")
    if len(set(items)) != len(items):
        raise PassthroughError(f"host_nodes of VM {name} lists a node twice.")
    return tuple(items)


def _boot(name: str, kernel: Optional[dict[str, Any]]) -> Optional[DirectBoot]:
    if not kernel:
        return None
    cmdline = str(kernel.get("cmdline") or "")
    if not cmdline.isprintable():
        raise PassthroughError(f"The kernel command line of VM {name} holds a control character.")
    return DirectBoot(_path(name, kernel, "path", required=True), _path(name, kernel, "initrd"), cmdline)


def _path(name: str, holder: dict[str, Any], key: str, required: bool = False) -> str:
    value = holder.get(key) or ""
    if not value and not required:
        return ""
    if not isinstance(value, str) or not value.startswith("/") or not value.isprintable():
        raise PassthroughError(f"{key} of VM {name} is {value!r}: give an absolute path.")
    return value


def _extra_xml(name: str, text: Any) -> str:
    """Elements for the end of <devices>; they must be well formed on their own so that they cannot close it."""
    if not isinstance(text, str):
        raise PassthroughError(f"extra_xml of VM {name} is {text!r}: give libvirt elements as text.")
    if not text.strip():
        return ""
    if "<!" in text or "<?" in text:
        raise PassthroughError(f"extra_xml of VM {name} holds a declaration, a comment or a processing instruction: "
                               "give elements only.")
    try:
        ElementTree.fromstring(f"<devices xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>{text}</devices>")
    except ElementTree.ParseError as error:
        raise PassthroughError(f"extra_xml of VM {name} is not well formed XML: {error}.") from error
    return text.strip()
