# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operator reads beside the XML: the choices with their reasons, and what deserves a warning."""

from __future__ import annotations

from .model import GIB, Feature, Gpu, HostView, Pinning, VmRequest
from .numa import INITIATORS_PER_GPU, SMALL_GUEST_NODES, Numa


def describe_choices(request: VmRequest, gpus: tuple[Gpu, ...], numa: Numa, pinning: Pinning,
                     pin_reason: str) -> tuple[Feature, ...]:
    counts = ", ".join(str(len(nodes)) for nodes in numa.initiators)
    return (
        *(Feature(f"bar-sizes {gpu.address}", "+".join(_size(bar) for bar in gpu.bars), gpu.bars_source)
          for gpu in gpus),
        Feature("generic-initiators", counts if any(numa.initiators) else "off", _initiator_reason(request, gpus)),
        Feature("distances", "host SLIT" if numa.slit else "fallback",
                "the host tells all of them" if numa.slit else "the host does not tell all of them: NVIDIA's values"),
        Feature("pinning", "1:1" if pinning.emulator else "off", pin_reason),
    )


def _size(size: int) -> str:
    return f"{size // GIB}G" if size % GIB == 0 else f"{size >> 20}M"


def _initiator_reason(request: VmRequest, gpus: tuple[Gpu, ...]) -> str:
    if not request.generic_initiators:
        return "generic_initiators is none"
    if not any(gpu.coherent for gpu in gpus):
        return "no GPU has coherent memory"
    if all(gpu.initiator_nodes for gpu in gpus if gpu.coherent):
        return "as many as the host has for each GPU"
    return f"the host shows none: {INITIATORS_PER_GPU} for each GPU, NVIDIA's count"


def warn(request: VmRequest, host: HostView, gpus: tuple[Gpu, ...], numa: Numa, pinning: Pinning,
         pin_reason: str) -> tuple[str, ...]:
    warnings = [f"{gpu.address} is in use by the VM {holder}: {request.name} cannot start beside it."
                for gpu in gpus for holder in gpu.holders if holder != request.name]
    if request.pin and not pinning.emulator:
        warnings.append(f"VM {request.name} is not pinned: {pin_reason}.")
    for gpu, nodes in zip(gpus, numa.initiators):
        if nodes and len(nodes) != INITIATORS_PER_GPU:
            warnings.append(f"{gpu.address}: the host has {len(nodes)} generic-initiator nodes for it, NVIDIA's driver "
                            f"expects {INITIATORS_PER_GPU}.")
    if len(numa.cells) > SMALL_GUEST_NODES:
        warnings.append(f"VM {request.name} has {len(numa.cells)} NUMA nodes: its kernel needs CONFIG_NODES_SHIFT of 6 "
                        f"or more (Debian's has 4, {SMALL_GUEST_NODES} nodes).")
    if request.virt_type == "kvm" and host.cacheable_memory is False and any(gpu.coherent for gpu in gpus):
        warnings.append(f"VM {request.name}: KVM of this kernel does not map GPU memory cacheable (capability 243); "
                        "the guest's driver will not work with it.")
    if any(gpu.numa_node >= 0 for gpu in gpus) and len(numa.cpu_cells) > 1 and not gpus[0].coherent:
        warnings.append(f"VM {request.name}: the guest does not see which NUMA node a GPU is near, because its root "
                        "port sits on pcie.0.")
    return tuple(warnings)
