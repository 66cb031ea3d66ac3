# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What gpu_info returns: GPUs with everything that must travel with them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Optional

from .._core.host import Host
from . import sysfs
from .holders import UsageReader
from .model import Bar, PciFunction, PciIdentity, Usage
from .numa import generic_initiator_nodes
from .products import family_of
from .select import SelectedGpu, parse_requests, select_gpus
from .variant import VariantChooser


def read_gpus(host: Host, gpus: Optional[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """One dictionary for each selected GPU, as documented in gpu_info's RETURN block."""
    identities = sysfs.list_identities(host)
    selected = select_gpus(parse_requests(gpus), identities)
    chooser = VariantChooser(host)
    usage_reader = UsageReader(host)
    initiators = generic_initiator_nodes(host)
    found = []
    for gpu in selected:
        function = sysfs.read_function(host, gpu.address)
        nodes = initiators.get(gpu.address, ())
        usage = usage_reader.usage(function, nodes)
        fact = describe_gpu(gpu, function, usage, os.uname().machine)
        fact["generic_initiator_nodes"] = list(nodes)
        fact["group_members"] = describe_members(host, function, identities)
        variant = chooser.choose(function.modalias)
        fact["best_variant"] = {"module": variant.module, "driver": variant.driver, "source": variant.source}
        found.append(fact)
    return found


def describe_gpu(gpu: SelectedGpu, function: PciFunction, usage: Usage, machine: str) -> dict[str, Any]:
    """The facts of one GPU that need no look at other functions."""
    product = gpu.product
    return {
        "address": gpu.address,
        "vendor": gpu.identity.vendor,
        "device": gpu.identity.device,
        "subsystem": function.subsystem,
        "class": f"0x{gpu.identity.class_code:06x}",
        "product": product.name if product else None,
        "product_key": product.key if product else None,
        "family": family_of(product, machine),
        "coherent": product is not None,
        "numa_node": function.numa_node,
        "iommu_group": function.group,
        "driver": function.driver,
        "driver_override": function.driver_override,
        "modalias": function.modalias,
        "bars": [_describe_bar(bar) for bar in function.bars],
        "link": asdict(function.link) if function.link else None,
        "reset_methods": list(function.reset_methods),
        "holders": [{"pid": holder.pid, "command": holder.command, "path": holder.path, "vm": holder.vm}
                    for holder in usage.holders],
        "in_use_because": usage.reasons(),
        "console_framebuffer": usage.console,
        "boot_vga": function.boot_vga,
        "state": state_of(function, usage),
    }


def state_of(function: PciFunction, usage: Usage) -> str:
    """in-use beats bound-vfio: a device that somebody holds must be left alone whatever its driver is."""
    if usage.busy:
        return "in-use"
    return "bound-vfio" if function.vfio_device is not None else "free"


def describe_members(host: Host, function: PciFunction, identities: Mapping[str, PciIdentity]) -> list[dict[str, Any]]:
    """All functions of the IOMMU group, the GPU included; empty while the group is not known."""
    if function.group is None:
        return []
    members = []
    for address in sysfs.read_group_members(host, function.group):
        identity = identities.get(address)
        if identity is None:
            continue  # left the host between two reads
        members.append({
            "address": address,
            "vendor": identity.vendor,
            "device": identity.device,
            "class": f"0x{identity.class_code:06x}",
            "driver": sysfs.read_driver(host, address),
            "kind": identity.kind,
        })
    return members


def _describe_bar(bar: Bar) -> dict[str, Any]:
    return {"index": bar.index, "size": bar.size, "flags": f"0x{bar.flags:x}", "prefetchable": bar.prefetchable,
            "bits64": bar.bits64}
