# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each rule, broken one at a time in XML that keeps all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.invariants import (
    RULES,
    check_plan,
    check_xml,
    violations,
)
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.planner import plan_domain
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.view import (
    QEMU,
    view_of_plan,
    view_of_xml,
)
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.domain_render import read_template, render
from ansible_collections.nvgrace.passthrough.tests.unit._domain.descriptions import CASES

Root = ElementTree.Element


def xml_of(case: str) -> str:
    return render(plan_domain(**CASES[case]()), read_template())


def root_of(case: str) -> Root:
    return ElementTree.fromstring(xml_of(case))


def element(root: Root, path: str) -> Root:
    found = root.find(path)
    assert found is not None, path
    return found


def argument(root: Root, old: str, new: str) -> None:
    changed = [item for item in root.iter(f"{QEMU}arg") if item.get("value") == old]
    assert changed, old
    changed[0].set("value", new)


def alias_of(root: Root, name: str) -> Root:
    return element(root, f"devices/*/alias[@name='{name}']")


def move(root: Root, tag: str, bus: str) -> None:
    element(root, f"devices/{tag}/address[@type='pci']").set("bus", bus)


def drop(root: Root, parent: str, child: str) -> None:
    holder = element(root, parent)
    holder.remove(element(holder, child))


def controller(index: int) -> str:
    return f"devices/controller[@type='pci'][@index='{index}']"


def initiator(root: Root, alias: str, node: int) -> None:
    """Changes the first generic initiator of the command line."""
    argument(root, "acpi-generic-initiator,id=gi0,pci-dev=ua-gpu0,node=2",
             f"acpi-generic-initiator,id=gi0,pci-dev={alias},node={node}")


def give_one_function_twice(root: Root) -> None:
    for source in root.iterfind("devices/hostdev/source/address"):
        source.set("domain", "0x0001")


def share_one_smmu_bus(root: Root) -> None:
    drivers = root.findall("devices/iommu/driver")
    for driver in drivers[1:]:
        driver.set("pciBus", drivers[0].get("pciBus", ""))


def add_plain_device(root: Root) -> None:
    argument(root, "-object", "-device")
    argument(root, "acpi-generic-initiator,id=gi0,pci-dev=ua-gpu0,node=2", "edu,bus=ua-rp0")


COMPAT = "gb200-2gpu-compat"
NATIVE = "gb300-4gpu-native"
WINDOW = f"highmem-mmio-size={2 << 40}"

BROKEN: list[tuple[str, Callable[[Root], None], str]] = [
    (COMPAT, lambda root: argument(root, WINDOW, "highmem-mmio-size=1073741825K"), "is not a power of two"),
    (COMPAT, lambda root: argument(root, WINDOW, "highmem-mmio-size=256G"), "is not between 512 and 16384 GiB"),
    (COMPAT, lambda root: argument(root, WINDOW, "ras=on"), "MMIO window is not set"),
    (NATIVE, lambda root: setattr(element(root, "devices/controller/pcihole64"), "text", "3"), "not a power of two"),
    (COMPAT, lambda root: argument(root, "node,nodeid=5", "node,nodeid=50"), "numbered from 0 without a gap"),
    (COMPAT, lambda root: initiator(root, "ua-gpu0", 99), "node 99, which the guest"),
    (COMPAT, lambda root: initiator(root, "ua-x", 2), "no device has that alias"),
    (COMPAT, lambda root: initiator(root, "ua-gpu0", 3), "initiator of 2 devices"),
    (NATIVE, lambda root: element(root, "devices/hostdev/acpi").set("nodeset", "1-99"), "node 34, which the guest"),
    (COMPAT, lambda root: element(root, f"{controller(5)}/target").set("busNr", "4"), "not above the highest"),
    (COMPAT, lambda root: element(root, f"{controller(7)}/target").set("busNr", "34"), "leave no bus for the root"),
    (COMPAT, lambda root: setattr(element(root, f"{controller(5)}/target/node"), "text", "77"), "near NUMA node 77"),
    (COMPAT, lambda root: move(root, "disk", "0x06"), "the disk vdb sits behind the root port of a GPU"),
    (COMPAT, lambda root: drop(root, "devices/rng", "address"), "the rng rng has no PCI address"),
    (COMPAT, lambda root: drop(root, controller(6), "address"), "controller 6 has no PCI address"),
    (COMPAT, lambda root: move(root, "interface", "0x01"), "2 devices have the guest address 01:00.0"),
    (COMPAT, give_one_function_twice, "0001:06:00.0 of the host is given to the guest twice"),
    (COMPAT, lambda root: move(root, "rng", "0x2a"), "PCI bus 42, which no controller provides"),
    (NATIVE, lambda root: element(root, "devices/iommu/driver").set("pciBus", "1"), "which is no expander bus"),
    (NATIVE, share_one_smmu_bus, "4 SMMUs are for PCI bus 3"),
    (COMPAT, lambda root: element(root, f"{controller(6)}/target").set("hotplug", "off"), "with hotplug off"),
    (COMPAT, lambda root: alias_of(root, "ua-rp0").set("name", "ua-port"), "no controller has that alias"),
    (COMPAT, lambda root: root.remove(element(root, f"{QEMU}override")), "reserves no bridge window"),
    (COMPAT, lambda root: alias_of(root, "ua-gpu1").set("name", "ua-gpu0"), "the alias ua-gpu0 is used 2 times"),
    (COMPAT, add_plain_device, "-device edu,bus=ua-rp0 before libvirt's devices"),
    ("x86-1gpu", lambda root: drop(root, "os", "loader"), "no firmware image is named"),
    ("x86-1gpu", lambda root: setattr(element(root, "os/loader"), "text", "/f/OVMF.amdsev.fd"), "the AMD SEV build"),
]


@pytest.mark.parametrize(("case", "change", "message"), BROKEN, ids=[message for _case, _change, message in BROKEN])
def test_broken_xml_is_refused(case: str, change: Callable[[Root], None], message: str) -> None:
    root = root_of(case)
    change(root)
    with pytest.raises(PassthroughError, match="would not work") as caught:
        check_xml("gpu-vm", ElementTree.tostring(root, encoding="unicode"))
    assert any(message in text for text in caught.value.details["broken"])


def test_every_rule_is_broken_by_a_case_above() -> None:
    spoken = set()
    for case, change, _message in BROKEN:
        root = root_of(case)
        change(root)
        view = view_of_xml(root)
        spoken |= {rule.__name__ for rule in RULES if list(rule(view))}
    assert spoken == {rule.__name__ for rule in RULES}


@pytest.mark.parametrize("case", sorted(CASES))
def test_plan_and_xml_look_the_same(case: str) -> None:
    plan = plan_domain(**CASES[case]())
    of_plan, of_xml = view_of_plan(plan), view_of_xml(root_of(case))
    assert of_plan.window == of_xml.window
    assert of_plan.cells == of_xml.cells
    assert of_plan.initiators == of_xml.initiators
    assert set(of_plan.controllers) == set(of_xml.controllers)
    assert {device.address for device in of_plan.devices} <= {device.address for device in of_xml.devices}
    assert of_plan.sources == of_xml.sources
    assert sorted(of_plan.aliases) == sorted(of_xml.aliases)
    assert (of_plan.smmu_buses, of_plan.reserves, of_plan.loader) == (of_xml.smmu_buses, of_xml.reserves, of_xml.loader)
    assert list(violations(of_plan)) == list(violations(of_xml)) == []


def test_a_broken_plan_is_refused_before_it_is_printed() -> None:
    plan = plan_domain(**CASES[COMPAT]())
    with pytest.raises(PassthroughError, match="reserves no bridge window"):
        check_plan(replace(plan, overrides=()))


def test_text_that_is_no_xml() -> None:
    with pytest.raises(PassthroughError, match="not well formed"):
        check_xml("gpu-vm", "<domain>")


def with_extra_xml(text: str) -> str:
    case = CASES["gh200-compat"]()
    case["vm"]["extra_xml"] = text
    return render(plan_domain(**case), read_template())


@pytest.mark.parametrize(("text", "label"), [
    ("<vsock model='virtio'><cid auto='yes'/></vsock>", "vsock vsock"),
    ("<input type='keyboard' bus='virtio'/>", "input keyboard"),
    ("<watchdog model='i6300esb' action='reset'/>", "watchdog watchdog"),
    ("<disk type='file' device='disk'><source file='/a'/><target dev='vdz' bus='virtio'/></disk>", "disk vdz"),
    ("<controller type='scsi' model='virtio-scsi'/>", "controller scsi"),
])
def test_an_emulated_device_of_extra_xml_needs_an_address(text: str, label: str) -> None:
    with pytest.raises(PassthroughError, match=f"the {label} has no PCI address"):
        check_xml("gpu-vm", with_extra_xml(text))


@pytest.mark.parametrize("text", [
    "<input type='mouse' bus='ps2'/>", "<watchdog model='itco' action='reset'/>", "<video><model type='none'/></video>",
    "<disk type='file' device='cdrom'><source file='/a'/><target dev='sda' bus='sata'/></disk>",
    "<controller type='sata'/>",
])
def test_a_device_that_is_not_on_pci_needs_none(text: str) -> None:
    check_xml("gpu-vm", with_extra_xml(text))
