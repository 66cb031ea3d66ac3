# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what host_info, gpu_info and region_verify returned to value objects; reads dictionaries only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from .._core.errors import PassthroughError
from .._gpu.products import product_of
from .._vfio.layout import mainline
from .model import MIB, Firmware, Gpu, HostNode, HostView

DEFAULT_EMULATOR = {"aarch64": "/usr/bin/qemu-system-aarch64", "x86_64": "/usr/bin/qemu-system-x86_64"}
_LAST_BAR = 5


def parse_cpus(text: str) -> tuple[int, ...]:
    """CPU numbers of a kernel list such as "0-3,8"."""
    cpus: list[int] = []
    for part in text.split(","):
        if part.strip():
            first, _dash, last = part.partition("-")
            cpus.extend(range(int(first), int(last or first) + 1))
    return tuple(cpus)


def format_cpus(numbers: Sequence[int]) -> str:
    """The shortest list that parse_cpus reads back as these sorted numbers."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def next_power_of_two(value: int) -> int:
    return 1 if value <= 1 else 1 << (value - 1).bit_length()


def parse_host(host: Optional[Mapping[str, Any]]) -> HostView:
    """The view of one host; a host that is not known (state rendered without facts) offers nothing."""
    if not host:
        return HostView(False, "", "", "", "", frozenset(), (), (), (), None)
    arch = str(_section(host, "kernel").get("machine") or "")
    qemu = _section(host, "qemu")
    return HostView(
        known=True,
        arch=arch,
        libvirt=str(_section(host, "libvirt").get("version") or ""),
        qemu=str(qemu.get("version") or ""),
        emulator=str(qemu.get("path") or DEFAULT_EMULATOR.get(arch, "")),
        features=_features(host),
        nodes=_nodes(_section(host, "numa").get("nodes") or []),
        hugepages=tuple(sorted(int(page["size"]) for page in host.get("hugepages") or [])),
        firmware=tuple(Firmware(str(image["path"]), str(image.get("vars") or ""), bool(image.get("secure_boot")))
                       for image in _section(host, "firmware").get("images") or []),
        cacheable_memory=_section(host, "kvm").get("cacheable_pfnmap"),
    )


def _section(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = facts.get(name)
    return value if isinstance(value, Mapping) else {}


def _features(host: Mapping[str, Any]) -> frozenset[str]:
    names = {f"libvirt_{name}" for name, there in _section(host, "libvirt_features").items() if there}
    names |= {f"qemu_{name}" for name, there in _section(host, "qemu_features").items() if there}
    iommu = _section(host, "iommu")
    if iommu.get("iommufd") and iommu.get("cdev"):
        names.add("host_iommufd")
    if _section(host, "kvm").get("present"):
        names.add("host_kvm")
    return frozenset(names)


def _nodes(items: Sequence[Mapping[str, Any]]) -> tuple[HostNode, ...]:
    """The kernel lists a node's distances in the order of the nodes that are online, not by number."""
    numbers = sorted(int(item["id"]) for item in items)
    nodes = []
    for item in items:
        distances = [int(value) for value in item.get("distances") or []]
        pairs = tuple(zip(numbers, distances)) if len(distances) == len(numbers) else ()
        nodes.append(HostNode(int(item["id"]), parse_cpus(str(item.get("cpus") or "")), pairs))
    return tuple(sorted(nodes, key=lambda node: node.id))


def parse_gpus(gpus: Sequence[Mapping[str, Any]], regions: Sequence[Mapping[str, Any]]) -> tuple[Gpu, ...]:
    """GPUs of gpu_info, sorted by address, with the region sizes of region_verify where it has seen them."""
    verified = {str(item.get("address")): item for item in regions}
    found = [_gpu(item, verified.get(str(item["address"]), {})) for item in gpus]
    return tuple(sorted(found, key=lambda gpu: gpu.address))


def _gpu(item: Mapping[str, Any], verified: Mapping[str, Any]) -> Gpu:
    address = str(item["address"])
    node = item.get("numa_node")
    bars, source = _bars(item, verified)
    return Gpu(
        address=address,
        product=str(item.get("product") or f"{item.get('vendor')}:{item.get('device')}"),
        coherent=bool(item.get("coherent")),
        numa_node=-1 if node is None else int(node),
        initiator_nodes=tuple(int(number) for number in item.get("generic_initiator_nodes") or []),
        functions=_functions(address, item.get("group_members") or []),
        bars=bars,
        bars_source=source,
        holders=tuple(sorted({str(holder["vm"]) for holder in item.get("holders") or [] if holder.get("vm")})),
    )


def _functions(address: str, members: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The functions of the GPU's own slot: one card stays one card in the guest (graphics and its audio)."""
    slot = address.rpartition(".")[0]
    same_slot = {str(member["address"]) for member in members
                 if str(member["address"]).rpartition(".")[0] == slot and member.get("kind") != "bridge"}
    return tuple(sorted(same_slot | {address}))


def _bars(item: Mapping[str, Any], verified: Mapping[str, Any]) -> tuple[tuple[int, ...], str]:
    """Sizes of the BARs that the guest will see, and who says so.

    region_verify comes first: what it saw, or what it predicted where it must not open the device. Without it, the
    physical BARs and the layout that the driver makes of the memory that is described or known of the product.
    """
    told = tuple(int(region["reported"]) for region in verified.get("regions") or []
                 if int(region["index"]) <= _LAST_BAR and int(region.get("reported") or 0) >= MIB)
    if told:
        return told, _source(verified)
    physical = tuple(int(bar["size"]) for bar in item.get("bars") or []
                     if bar.get("bits64") and int(bar.get("size") or 0))
    if not item.get("coherent"):
        return physical, "the physical BARs"
    memory, source = _memory(item)
    emulated = mainline(memory, mig_bug=item.get("family") == "grace-hopper")
    return physical + tuple(region.reported for region in emulated), source


def _source(verified: Mapping[str, Any]) -> str:
    if verified.get("verified_at"):
        return "the regions that region_verify saw"
    return f"the regions that region_verify predicted from {_section(verified, 'memory').get('source') or 'the BARs'}"


def _memory(item: Mapping[str, Any]) -> tuple[int, str]:
    """Bytes of coherent memory of a GPU that region_verify has not looked at."""
    if item.get("expected_memory"):
        return int(item["expected_memory"]), "the memory that the description gives"
    product = product_of(str(item.get("vendor")), str(item.get("device")))
    if product is None:
        raise PassthroughError(f"{item['address']}: the size of its memory is not known, so the guest's MMIO window "
                               "cannot be sized; run region_verify first, or give expected_memory.")
    return product.memory, "the product table"
