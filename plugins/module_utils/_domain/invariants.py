# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules that a correct domain keeps and that libvirt does not check. Each one has its own message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Callable
from xml.etree import ElementTree

from .._core.errors import PassthroughError
from .model import GIB, DomainPlan
from .pci import LARGEST_WINDOW, SMALLEST_WINDOW
from .view import View, view_of_plan, view_of_xml

Rule = Callable[[View], Iterator[str]]


def check_plan(plan: DomainPlan) -> None:
    """Raises PassthroughError with the first rule that the plan breaks; ``broken`` in its details has all."""
    _raise(plan.name, list(violations(view_of_plan(plan))))


def check_xml(name: str, xml: str) -> ElementTree.Element:
    """The parsed XML of a domain that keeps all rules; also refuses XML that is not well formed."""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise PassthroughError(f"The XML of VM {name} is not well formed: {error}.") from error
    _raise(name, list(violations(view_of_xml(root))))
    return root


def violations(view: View) -> Iterator[str]:
    """Every broken rule, one sentence each."""
    for rule in RULES:
        yield from rule(view)


def _raise(name: str, broken: list[str]) -> None:
    if broken:
        raise PassthroughError(f"The domain {name} would not work: {broken[0]}", broken=broken)


def window_is_usable(view: View) -> Iterator[str]:
    if view.window is None:
        if view.arch == "aarch64" and view.gpu_ports():
            yield "the 64-bit MMIO window is not set, and QEMU's default is too small for a GPU with coherent memory."
        return
    if view.window & (view.window - 1):
        yield f"the MMIO window of {view.window} bytes is not a power of two, which QEMU refuses."
    if not SMALLEST_WINDOW <= view.window <= LARGEST_WINDOW:
        yield (f"the MMIO window of {view.window} bytes is not between {SMALLEST_WINDOW // GIB} and "
               f"{LARGEST_WINDOW // GIB} GiB.")


def cells_are_numbered(view: View) -> Iterator[str]:
    if sorted(view.cells) != list(range(len(view.cells))):
        yield f"the NUMA nodes are {sorted(view.cells)}: they must be numbered from 0 without a gap."


def initiators_have_cells(view: View) -> Iterator[str]:
    for alias, node in view.initiators:
        if node not in view.cells:
            yield f"{alias} has a generic initiator in NUMA node {node}, which the guest does not have."
        if alias not in view.aliases:
            yield f"NUMA node {node} belongs to {alias}, and no device has that alias."


def initiators_are_disjoint(view: View) -> Iterator[str]:
    for node, count in Counter(node for _alias, node in view.initiators).items():
        if count > 1:
            yield f"NUMA node {node} is the generic initiator of {count} devices."


def expanders_have_free_buses(view: View) -> Iterator[str]:
    """A root port below an expander takes the next bus number, so two expanders are two apart."""
    buses = sorted(item.bus_number for item in view.controllers if item.bus_number is not None)
    highest = max((item.index for item in view.controllers), default=0)
    if buses and buses[0] <= highest:
        yield f"the expander bus number {buses[0]} is not above the highest controller index, {highest}."
    for first, second in zip(buses, buses[1:]):
        if second - first < 2:
            yield f"the expander bus numbers {first} and {second} leave no bus for the root port between them."


def expanders_have_cells(view: View) -> Iterator[str]:
    for item in view.controllers:
        if item.node is not None and item.node not in view.cells:
            yield f"the expander bus {item.index} is near NUMA node {item.node}, which the guest does not have."


def emulated_devices_keep_away(view: View) -> Iterator[str]:
    ports = view.gpu_ports()
    for device in view.devices:
        if device.kind != "hostdev" and device.address and device.address.bus in ports:
            yield f"the {device.kind} {device.label} sits behind the root port of a GPU."


def addresses_are_explicit(view: View) -> Iterator[str]:
    for device in view.devices:
        if device.address is None:
            yield (f"the {device.kind} {device.label} has no PCI address, so libvirt may put it behind the root port "
                   "of a GPU.")
    for item in view.controllers:
        if item.address is None and item.model != "pcie-root":
            yield f"the PCI controller {item.index} has no PCI address."


def addresses_are_unique(view: View) -> Iterator[str]:
    used = Counter((place.bus, place.slot, place.function) for place in view.places())
    for (bus, slot, function), count in used.items():
        if count > 1:
            yield f"{count} devices have the guest address {bus:02x}:{slot:02x}.{function}."
    for address, count in Counter(view.sources).items():
        if count > 1:
            yield f"{address} of the host is given to the guest twice."


def buses_exist(view: View) -> Iterator[str]:
    for bus in sorted({place.bus for place in view.places()}):
        if view.controller(bus) is None:
            yield f"a device sits on PCI bus {bus}, which no controller provides."


def smmus_sit_on_expanders(view: View) -> Iterator[str]:
    for bus in view.smmu_buses:
        controller = view.controller(bus)
        if controller is None or controller.model != "pcie-expander-bus":
            yield f"an accelerated SMMU is for PCI bus {bus}, which is no expander bus."
    for bus, count in Counter(view.smmu_buses).items():
        if count > 1:
            yield f"{count} SMMUs are for PCI bus {bus}."


def reserving_ports_hotplug(view: View) -> Iterator[str]:
    for alias in view.reserves:
        port = view.by_alias(alias)
        if port is None:
            yield f"a bridge window is reserved for {alias}, and no controller has that alias."
        elif not port.hotplug:
            yield f"{alias} reserves a bridge window with hotplug off, and the firmware then ignores the reserve."


def reserve_where_the_guest_assigns(view: View) -> Iterator[str]:
    """Behind an expander bus without an accelerated SMMU arm64 guests assign no BAR unless the port reserves room."""
    for index in sorted(view.gpu_ports() if view.arch == "aarch64" else ()):
        port = view.controller(index)
        parent = view.controller(port.address.bus) if port and port.address else None
        if port is None or parent is None or parent.model != "pcie-expander-bus" or parent.index in view.smmu_buses:
            continue
        if port.alias not in view.reserves:
            yield f"the root port {index} of a GPU reserves no bridge window: the guest would assign no BAR."


def aliases_are_unique(view: View) -> Iterator[str]:
    for alias, count in Counter(alias for alias in view.aliases if alias).items():
        if count > 1:
            yield f"the alias {alias} is used {count} times."


def raw_devices_are_json(view: View) -> Iterator[str]:
    for value in view.raw_devices:
        if not value.startswith("{"):
            yield f"QEMU would create -device {value} before libvirt's devices: write it as JSON."


def firmware_is_named(view: View) -> Iterator[str]:
    if not view.loader:
        yield "no firmware image is named, so libvirt may pick the Secure Boot one."
    elif "amdsev" in view.loader:
        yield f"the firmware {view.loader} is the AMD SEV build."


RULES: tuple[Rule, ...] = (
    window_is_usable, cells_are_numbered, initiators_have_cells, initiators_are_disjoint, expanders_have_free_buses,
    expanders_have_cells, emulated_devices_keep_away, addresses_are_explicit, addresses_are_unique, buses_exist,
    smmus_sit_on_expanders, reserving_ports_hotplug, reserve_where_the_guest_assigns, aliases_are_unique,
    raw_devices_are_json, firmware_is_named,
)
