# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads IOMMU, VFIO, hugepages, NUMA and limits from sysfs and procfs, and the UEFI images for guests."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Optional

from .._core.host import Host
from .._gpu.isolation import IOMMUFD_UNSAFE, NOIOMMU, TYPE1_UNSAFE
from .acpi import read_firmware_domains
from .facts import Firmware, FirmwareImage, HugepagePool, Iommu, Kernel, Numa, NumaNode, Vfio

KIB = 1024
HUGEPAGES = "/sys/kernel/mm/hugepages"
_NODES = "/sys/devices/system/node"
_GROUPS = "/sys/kernel/iommu_groups"
_DESCRIPTORS = "/usr/share/qemu/firmware"
_IOMMU_NAMES = (("smmu3.", "arm-smmu-v3"), ("arm-smmu-v3", "arm-smmu-v3"), ("dmar", "intel"), ("ivhd", "amd"))
# Interrupt chips whose MSIs the hardware remaps or translates per device, and such that let any device raise any MSI.
_ISOLATED_CHIPS = re.compile(r"\s(IR-PCI-MSI|ITS-)")
_PLAIN_CHIPS = re.compile(r"\s(PCI-MSI|GICv2m)")
# For distributions without firmware descriptors; (code, variables, enforces signatures).
_KNOWN_IMAGES = {
    "aarch64": (("/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", "/usr/share/AAVMF/AAVMF_VARS.fd", False),
                ("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd", False)),
    "x86_64": (("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd", False),
               ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd", False)),
}


def read_iommu(host: Host, kernel: Kernel) -> Iommu:
    """The IOMMU and its groups. Groups can be few before drivers are probed: the unit itself is what counts."""
    units = host.listdir("/sys/class/iommu")
    groups = host.listdir(_GROUPS)
    types = Counter(filter(None, (host.read_text(f"{_GROUPS}/{group}/type") for group in groups)))
    return Iommu(
        present=bool(units),
        kind=_iommu_kind(units),
        groups=len(groups),
        isolated_msi=_isolated_msi(host),
        default_domain=types.most_common(1)[0][0] if types else None,
        iommufd=host.exists("/dev/iommu"),
        cdev=kernel.option("VFIO_DEVICE_CDEV") == "y" or host.is_dir("/dev/vfio/devices"),
    )


def _iommu_kind(units: list[str]) -> str:
    for prefix, kind in _IOMMU_NAMES:
        if any(unit.startswith(prefix) for unit in units):
            return kind
    return "unknown" if units else "none"


def _isolated_msi(host: Host) -> Optional[bool]:
    """From the chip names in /proc/interrupts: the kernel shows this state nowhere else. None without any MSI."""
    text = host.read_text("/proc/interrupts") or ""
    if _ISOLATED_CHIPS.search(text):
        return True
    return False if _PLAIN_CHIPS.search(text) else None


def read_vfio(host: Host) -> Vfio:
    """The parameters that switch isolation off, of the modules that are loaded."""
    return Vfio(
        allow_unsafe_interrupts=_flag(host, TYPE1_UNSAFE),
        noiommu=_flag(host, NOIOMMU),
        iommufd_allow_unsafe_interrupts=_flag(host, IOMMUFD_UNSAFE),
    )


def _flag(host: Host, path: str) -> Optional[bool]:
    text = host.read_text(path)
    return None if text is None else text in ("Y", "1")


def read_hugepages(host: Host) -> tuple[HugepagePool, ...]:
    """All pools, smallest pages first."""
    pools = []
    for name in host.listdir(HUGEPAGES):
        size = re.fullmatch(r"hugepages-(\d+)kB", name)
        if size:
            pools.append(HugepagePool(int(size.group(1)) * KIB, _number(host, f"{HUGEPAGES}/{name}/nr_hugepages"),
                                      _number(host, f"{HUGEPAGES}/{name}/free_hugepages")))
    return tuple(sorted(pools, key=lambda pool: pool.size))


def hugepage_attribute(size: int) -> str:
    """The sysfs attribute that sets the number of hugepages of a size in bytes."""
    return f"{HUGEPAGES}/hugepages-{size // KIB}kB/nr_hugepages"


def _number(host: Host, path: str) -> int:
    text = host.read_text(path) or ""
    return int(text) if text.isdigit() else 0


def read_memlock(host: Host, pid: str = "self") -> Optional[int]:
    """Hard limit of locked memory of a process in bytes, -1 for unlimited."""
    match = re.search(r"^Max locked memory\s+\S+\s+(\S+)", host.read_text(f"/proc/{pid}/limits") or "", re.MULTILINE)
    if match is None:
        return None
    return -1 if match.group(1) == "unlimited" else int(match.group(1))


def read_numa(host: Host) -> Numa:
    """NUMA nodes by number; generic initiators are the nodes that firmware ties to a device."""
    initiators = set(parse_id_list(host.read_text(f"{_NODES}/has_generic_initiator") or ""))
    nodes = []
    for name in host.listdir(_NODES):
        match = re.fullmatch(r"node(\d+)", name)
        if match:
            nodes.append(_read_node(host, int(match.group(1)), initiators))
    return Numa(tuple(sorted(nodes, key=lambda node: node.id)), read_firmware_domains(host))


def _read_node(host: Host, number: int, initiators: set[int]) -> NumaNode:
    path = f"{_NODES}/node{number}"
    total = re.search(r"MemTotal:\s+(\d+) kB", host.read_text(f"{path}/meminfo") or "")
    distances = (host.read_text(f"{path}/distance") or "").split()
    return NumaNode(number, host.read_text(f"{path}/cpulist") or "", int(total.group(1)) * KIB if total else 0,
                    tuple(int(distance) for distance in distances), number in initiators)


def parse_id_list(text: str) -> Iterator[int]:
    """The numbers of a kernel list such as "0-3,8"."""
    for part in filter(None, text.strip().split(",")):
        first, _dash, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def read_firmware(host: Host, machine: str) -> Firmware:
    """UEFI images for guests of this machine's kind: QEMU's descriptors, else the places where distributions put them.
    """
    images = list(_described_images(host, machine))
    if not images:
        images = [FirmwareImage(code, variables, secure, "raw")
                  for code, variables, secure in _KNOWN_IMAGES.get(machine, ())
                  if host.exists(code) and host.exists(variables)]
    return Firmware(host.is_dir("/sys/firmware/efi"), tuple(images))


def _described_images(host: Host, machine: str) -> Iterator[FirmwareImage]:
    """Descriptors are described in QEMU's docs/interop/firmware.json; those that do not parse are left out."""
    for name in host.listdir(_DESCRIPTORS):
        if not name.endswith(".json"):
            continue
        try:
            image = _parse_descriptor(json.loads(host.read_text(f"{_DESCRIPTORS}/{name}") or ""), machine)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if image is not None and host.exists(image.path):
            yield image


def _parse_descriptor(value: dict[str, Any], machine: str) -> Optional[FirmwareImage]:
    if not any(target["architecture"] == machine for target in value["targets"]):
        return None
    mapping = value["mapping"]
    if mapping.get("device") != "flash":
        return None
    return FirmwareImage(mapping["executable"]["filename"], mapping.get("nvram-template", {}).get("filename"),
                         "secure-boot" in value["features"], mapping["executable"].get("format", "raw"))
