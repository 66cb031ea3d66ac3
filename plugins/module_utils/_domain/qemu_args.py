# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU arguments for what a libvirt below 11.8 has no element for.

QEMU creates plain ``-device X,bus=Y`` before libvirt's JSON devices, so none is used here. Objects may come last: their
pci-dev is looked up when the ACPI tables are built. A second ``-machine`` merges with libvirt's.
"""

from __future__ import annotations

from .numa import Numa


def window_arguments(window: int) -> list[str]:
    """The 64-bit MMIO window in bytes."""
    return ["-machine", f"highmem-mmio-size={window}"]


def initiator_arguments(numa: Numa, aliases: tuple[str, ...]) -> list[str]:
    """Empty NUMA nodes, all distances, and an acpi-generic-initiator for each node; ``aliases`` go by GPU."""
    arguments: list[str] = []
    for cell in numa.cells:
        if not cell.cpus:
            arguments += ["-numa", f"node,nodeid={cell.id}"]
    for source, row in enumerate(numa.distances):
        for destination, value in enumerate(row):
            if source != destination:
                arguments += ["-numa", f"dist,src={source},dst={destination},val={value}"]
    number = 0
    for alias, nodes in zip(aliases, numa.initiators):
        for node in nodes:
            arguments += ["-object", f"acpi-generic-initiator,id=gi{number},pci-dev={alias},node={node}"]
            number += 1
    return arguments
