# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PCI of the guest: an explicit place for every device, and the size of the 64-bit MMIO window.

libvirt's own placement would put emulated devices into free GPU ports. They sit behind root ports of pcie.0 and never
beside a GPU, because an accelerated SMMU takes no emulated device.
"""

from __future__ import annotations

from dataclasses import dataclass

from .._core.errors import PassthroughError
from .facts import next_power_of_two
from .model import GIB, TIB, ExpanderBus, Gpu, Hostdev, Override, PciAddress, RootPort

_FIRST_PORT_SLOT = 1
_FIRST_GPU_SLOT = 16
_PORTS_PER_SLOT = 8
_EMULATED_CHASSIS = 101
_FIRST_EXPANDER_BUS = 33
_BUSES_PER_CELL = 32
_BUSES_PER_EXPANDER = 2
_LAST_BUS = 255

# QEMU refuses a smaller highmem-mmio-size, and NVIDIA and KubeVirt give each GPU at least this much.
SMALLEST_WINDOW = 512 * GIB
LARGEST_WINDOW = 16 * TIB


@dataclass(frozen=True)
class PciPlan:
    """``emulated`` are the places of the emulated devices, in the order in which they were asked for."""

    emulated: tuple[PciAddress, ...]
    root_ports: tuple[RootPort, ...]
    expanders: tuple[ExpanderBus, ...]
    hostdevs: tuple[Hostdev, ...]
    overrides: tuple[Override, ...]


def gpu_alias(number: int) -> str:
    """libvirt keeps an alias that starts with "ua-" and uses it as QEMU's id, so the command line can name the GPU."""
    return f"ua-gpu{number}"


def bridge_reserve(gpu: Gpu) -> int:
    """What a GPU's root port has to reserve (bytes) behind an expander bus without an accelerated SMMU.

    The firmware sizes the window by the sum of the BARs, arm64 Linux throws that away and aligns each BAR to its size;
    twice the largest BAR holds both (measured with two 64-bit BARs, QEMU 10.0 and 11.1).
    """
    return 2 * next_power_of_two(max(gpu.bars))


def mmio_window(gpus: tuple[Gpu, ...]) -> int:
    """The guest's 64-bit MMIO window: a power of two in bytes, room for every GPU and 1 GiB for the rest."""
    need = sum(max(bridge_reserve(gpu), SMALLEST_WINDOW) for gpu in gpus) + GIB
    window = next_power_of_two(need)
    if window > LARGEST_WINDOW:
        raise PassthroughError(f"{len(gpus)} GPUs need an MMIO window of {window // TIB} TiB, and QEMU's virt machine "
                               f"goes up to {LARGEST_WINDOW // TIB} TiB: give the VM fewer GPUs.")
    return window


def plan_pci(emulated: int, gpus: tuple[Gpu, ...], gpu_cells: tuple[int, ...], expander: bool,
             reserve: bool) -> PciPlan:
    """Places ``emulated`` devices and the GPUs, each of these behind a root port of its own.

    ``expander`` puts the port behind a pxb-pcie that knows the GPU's NUMA cell; ``reserve`` adds the window hint that
    such a port needs as long as the guest assigns the BARs itself.
    """
    ports = [_emulated_port(number) for number in range(emulated)]
    places = tuple(PciAddress(port.index, 0) for port in ports)
    expanders: list[ExpanderBus] = []
    hostdevs: list[Hostdev] = []
    index = emulated + 1
    buses = _bus_numbers(gpu_cells, emulated + 2 * len(gpus)) if expander else ()
    for number, gpu in enumerate(gpus):
        address = PciAddress(0, _FIRST_GPU_SLOT + number)
        if expander:
            expanders.append(ExpanderBus(index, buses[number], gpu_cells[number], f"ua-pxb{number}", address))
            address = PciAddress(index, 0)
            index += 1
        # hotplug stays on: AAVMF ignores the reserve of a port that cannot hotplug
        ports.append(RootPort(index, number + 1, number, True, f"ua-rp{number}", address))
        hostdevs.extend(_hostdevs(gpu, number, index))
        index += 1
    overrides = tuple(Override(f"ua-rp{number}", (("pref64-reserve", bridge_reserve(gpu)), ("io-reserve", 0)))
                      for number, gpu in enumerate(gpus)) if reserve else ()
    return PciPlan(places, tuple(ports), tuple(expanders), tuple(hostdevs), overrides)


def _emulated_port(number: int) -> RootPort:
    slot, function = divmod(number, _PORTS_PER_SLOT)
    address = PciAddress(0, _FIRST_PORT_SLOT + slot, function, function == 0)
    port = (address.slot << 3) | function
    return RootPort(number + 1, _EMULATED_CHASSIS + number, port, False, "", address)


def _bus_numbers(gpu_cells: tuple[int, ...], last_index: int) -> tuple[int, ...]:
    """A bus number for each expander, apart by cell, all above the highest controller index as libvirt wants it."""
    first = max(_FIRST_EXPANDER_BUS, last_index + 1 | 1)
    numbers = []
    for position, cell in enumerate(gpu_cells):
        before = gpu_cells[:position].count(cell)
        numbers.append(first + cell * _BUSES_PER_CELL + before * _BUSES_PER_EXPANDER)
    if max(numbers) + _BUSES_PER_EXPANDER > _LAST_BUS:
        raise PassthroughError(f"{len(gpu_cells)} GPUs on {max(gpu_cells) + 1} NUMA nodes need more PCI bus numbers "
                               "than there are: choose fewer host_nodes.")
    return tuple(numbers)


def _hostdevs(gpu: Gpu, number: int, port_index: int) -> list[Hostdev]:
    """Each function of the card keeps its function number, so that the guest sees one card."""
    hostdevs = []
    for name in gpu.functions:
        domain, bus, rest = name.split(":")
        slot, function = rest.split(".")
        alias = gpu_alias(number) if name == gpu.address else f"{gpu_alias(number)}-{function}"
        place = int(function) if len(gpu.functions) > 1 else 0
        address = PciAddress(port_index, 0, place, len(gpu.functions) > 1 and place == 0)
        hostdevs.append(Hostdev(int(domain, 16), int(bus, 16), int(slot, 16), int(function, 16), alias, address))
    return hostdevs
