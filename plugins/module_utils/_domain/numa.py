# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NUMA of the guest: CPU cells, generic-initiator cells, distances, pinning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from .._core.errors import PassthroughError
from .facts import format_cpus
from .model import MIB, Cell, Gpu, HostNode, HostView, Pinning, VmRequest

# NVIDIA's count for every Grace GPU, with or without MIG
INITIATORS_PER_GPU = 8

LOCAL = 10
# NVIDIA's values, used where the host's SLIT does not say
SAME_GPU = 11
CROSS = 40
CPU_TO_OWN_GPU = 80
CPU_TO_OTHER_GPU = 120
_LARGEST_DISTANCE = 254

# Debian's kernels have CONFIG_NODES_SHIFT=4
SMALL_GUEST_NODES = 16
_MOST_RESERVED_CPUS = 4


@dataclass(frozen=True)
class Numa:
    """``cells`` holds CPU cells first, then the initiators of each GPU. ``gpu_cell`` and ``initiators`` go by GPU;
    ``distances`` has a row for each cell; ``slit`` tells whether the host's SLIT was used."""

    cells: tuple[Cell, ...]
    gpu_cell: tuple[int, ...]
    initiators: tuple[tuple[int, ...], ...]
    distances: tuple[tuple[int, ...], ...]
    slit: bool

    @property
    def cpu_cells(self) -> tuple[Cell, ...]:
        return tuple(cell for cell in self.cells if cell.cpus)


def plan_numa(request: VmRequest, host: HostView, gpus: tuple[Gpu, ...]) -> Numa:
    """One CPU cell for each host node that is used, with an equal share of vCPUs and memory."""
    nodes = _host_nodes(request, host, gpus)
    cells = list(_cpu_cells(request, nodes))
    gpu_cell = tuple(_nearest(gpu, host, nodes) for gpu in gpus)
    initiators = []
    for gpu in gpus:
        own = _initiator_cells(gpu, len(cells), request.generic_initiators)
        cells.extend(own)
        initiators.append(tuple(cell.id for cell in own))
    distances = _host_distances(cells, host)
    if distances is None:
        return Numa(tuple(cells), gpu_cell, tuple(initiators), _fallback_distances(cells, gpu_cell, initiators), False)
    return Numa(tuple(cells), gpu_cell, tuple(initiators), distances, True)


def _host_nodes(request: VmRequest, host: HostView, gpus: tuple[Gpu, ...]) -> tuple[int, ...]:
    with_cpus = [node.id for node in host.nodes if node.cpus]
    if request.host_nodes:
        wrong = [node for node in request.host_nodes if host.nodes and node not in with_cpus]
        if wrong:
            raise PassthroughError(f"host_nodes of VM {request.name} names node {wrong[0]}, which has no CPUs on this "
                                   f"host: choose from {', '.join(map(str, with_cpus))}.")
        return request.host_nodes
    near = {gpu.numa_node for gpu in gpus if gpu.numa_node in with_cpus or (not host.nodes and gpu.numa_node >= 0)}
    return tuple(sorted(near)) or tuple(with_cpus[:1]) or (0,)


def _cpu_cells(request: VmRequest, nodes: tuple[int, ...]) -> tuple[Cell, ...]:
    count = len(nodes)
    page = request.hugepages or MIB
    if request.vcpus % count or request.memory % (count * page):
        raise PassthroughError(f"VM {request.name} spans {count} NUMA node(s) of the host: vcpus ({request.vcpus}) "
                               f"must divide by {count}, and memory ({request.memory} bytes) by {count * page} bytes.")
    share = request.vcpus // count
    return tuple(Cell(index, format_cpus(range(index * share, (index + 1) * share)), request.memory // count, node)
                 for index, node in enumerate(nodes))


def _nearest(gpu: Gpu, host: HostView, nodes: tuple[int, ...]) -> int:
    """The cell that stands for the GPU's node, else for the node nearest to it."""
    if gpu.numa_node in nodes:
        return nodes.index(gpu.numa_node)
    own = host.node(gpu.numa_node)
    known = [(own.distance_to(node), index) for index, node in enumerate(nodes)] if own else []
    return min(((distance, index) for distance, index in known if distance is not None), default=(0, 0))[1]


def _initiator_cells(gpu: Gpu, first: int, wanted: bool) -> tuple[Cell, ...]:
    if not wanted or not gpu.coherent:
        return ()
    nodes: tuple[Optional[int], ...] = gpu.initiator_nodes or (None,) * INITIATORS_PER_GPU
    return tuple(Cell(first + offset, "", 0, node) for offset, node in enumerate(nodes))


def _host_distances(cells: list[Cell], host: HostView) -> Optional[tuple[tuple[int, ...], ...]]:
    """The host's SLIT between the nodes that the cells stand for, or None where it does not tell all of them."""
    rows = []
    for cell in cells:
        node = None if cell.host_node is None else host.node(cell.host_node)
        row = [_remap(cell, other, node) for other in cells]
        if any(value is None for value in row):
            return None
        rows.append(tuple(value for value in row if value is not None))
    return tuple(rows)


def _remap(cell: Cell, other: Cell, node: Optional[HostNode]) -> Optional[int]:
    """10 is reserved for a cell and itself: a host that says 10 between two nodes becomes 11."""
    if cell.id == other.id:
        return LOCAL
    if node is None or other.host_node is None:
        return None
    distance = node.distance_to(other.host_node)
    return None if distance is None else min(max(distance, LOCAL + 1), _LARGEST_DISTANCE)


def _fallback_distances(cells: list[Cell], gpu_cell: tuple[int, ...],
                        initiators: list[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    owner = {cell: gpu for gpu, own in enumerate(initiators) for cell in own}

    def between(first: int, second: int) -> int:
        if first == second:
            return LOCAL
        if first in owner and second in owner:
            return SAME_GPU if owner[first] == owner[second] else CROSS
        if first not in owner and second not in owner:
            return CROSS
        gpu, cpu = (owner[first], second) if first in owner else (owner[second], first)
        return CPU_TO_OWN_GPU if gpu_cell[gpu] == cpu else CPU_TO_OTHER_GPU

    return tuple(tuple(between(first.id, second.id) for second in cells) for first in cells)


def plan_pinning(request: VmRequest, host: HostView, cells: tuple[Cell, ...]) -> tuple[Pinning, str]:
    """1:1 pins inside each cell's node with CPUs of the first node kept for QEMU itself, and why there are none."""
    if not request.pin:
        return Pinning(), "pinning is none"
    share = request.vcpus // len(cells)
    nodes = [host.node(cell.host_node) if cell.host_node is not None else None for cell in cells]
    if any(node is None for node in nodes):
        return Pinning(), "the host's NUMA nodes are not known"
    cpus = [node.cpus for node in nodes if node is not None]
    spare = min(_MOST_RESERVED_CPUS, len(cpus[0]) - share)
    if spare < 1 or any(len(own) < share for own in cpus):
        return Pinning(), (f"each host node would need {share} CPUs, the first one more for QEMU, and there are "
                           f"{', '.join(str(len(own)) for own in cpus)}")
    vcpus: list[tuple[int, int]] = []
    for index, own in enumerate(cpus):
        usable = own[spare:] if index == 0 else own
        vcpus.extend((index * share + offset, cpu) for offset, cpu in enumerate(usable[:share]))
    emulator, iothread = cpus[0][:max(spare - 1, 1)], cpus[0][spare - 1]
    memory = tuple((cell.id, cell.host_node) for cell in cells if cell.host_node is not None)
    return Pinning(tuple(vcpus), format_cpus(emulator), str(iothread), memory), "one host CPU for each vCPU"
