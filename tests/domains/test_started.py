# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each golden domain started as its twin: what a guest sees equals what was planned.

Each is started by the suite that its profile is for. NVGRACE_ALL_TWINS=1 starts it wherever it can be started.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest
from libvirt_root import LibvirtRoot
from started import ROOT, Run, guest_files, log_path, start_twins
from twin import Guest, GuestDevice, Twin, TwinMaker, read_guest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.facts import parse_gpus
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.model import DomainPlan, Hostdev, PciAddress
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.planner import plan_domain
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.view import view_of_plan
from ansible_collections.nvgrace.passthrough.tests.unit._domain.descriptions import CASES

# Debian's kernels have room for this many nodes: what is beyond is in the tables only.
GUEST_NODES = 16
HOME = {"compat": "trixie", "no-accel": "forky", "native": "forky", "x86": "trixie"}
ALSO = {"compat": {"trixie", "forky"}, "no-accel": {"forky"}, "native": {"forky"},
        "x86": {"bookworm", "trixie", "forky"}}
EVERYWHERE = os.environ.get("NVGRACE_ALL_TWINS") == "1"
PLANS = {name: plan_domain(**case()) for name, case in sorted(CASES.items())}


def starts_in(plan: DomainPlan, suite: str) -> bool:
    return suite in ALSO[plan.profile] if EVERYWHERE else suite == HOME[plan.profile]


CHOSEN = [(suite, name) for suite in ("bookworm", "trixie", "forky") for name, plan in PLANS.items()
          if starts_in(plan, suite)]


def bars_by_alias(name: str, plan: DomainPlan) -> dict[str, tuple[int, ...]]:
    case = CASES[name]()
    sizes = {gpu.address: gpu.bars for gpu in parse_gpus(case["gpus"], case["regions"])}
    return {hostdev.alias: sizes.get(source(hostdev), ()) for hostdev in plan.hostdevs}


def source(hostdev: Hostdev) -> str:
    return f"{hostdev.domain:04x}:{hostdev.bus:02x}:{hostdev.slot:02x}.{hostdev.function}"


@dataclass(frozen=True)
class Started:
    plan: DomainPlan
    twin: Twin
    run: Run
    guest: Guest

    def path(self, place: PciAddress) -> tuple[str, ...]:
        """Where the guest must see what was planned for ``place``: the addresses from the PCI root down."""
        view = view_of_plan(self.plan)
        steps: list[str] = []
        bus = place.bus
        while bus:
            controller = view.controller(bus)
            assert controller is not None and controller.address is not None
            if controller.bus_number is not None:
                return (f"pci0000:{controller.bus_number:02x}", *steps)
            steps.insert(0, f"{controller.address.slot:02x}.{controller.address.function}")
            bus = controller.address.bus
        return ("pci0000:00", *steps)

    def device(self, place: PciAddress, function: int | None = None) -> GuestDevice:
        """The device at a planned place; ``function`` in the place of the planned one."""
        where = self.path(place)
        last = f"{place.slot:02x}.{place.function if function is None else function}"
        for device in self.guest.devices:
            steps = tuple(step.partition(":")[2].partition(":")[2] for step in device.path)
            if (device.root, *steps) == (*where, last):
                return device
        raise AssertionError(f"the guest has nothing at {where} {last}: {[item.path for item in self.guest.devices]}")


@pytest.fixture(scope="session")
def runs(roots: dict[str, LibvirtRoot]) -> dict[tuple[str, str], tuple[Twin, Run]]:
    guests = guest_files()
    found = {}
    for suite, root in roots.items():
        twins = {name: TwinMaker((ROOT / f"tests/unit/_domain/golden/{name}.xml").read_text(),
                                 bars_by_alias(name, PLANS[name]), log_path(name)).make()
                 for chosen, name in CHOSEN if chosen == suite}
        if not twins:
            continue
        print(f"\n{suite}: {root.versions()}", flush=True)
        for name, run in start_twins(root, guests, {name: twin.xml for name, twin in twins.items()}).items():
            found[suite, name] = (twins[name], run)
            print(f"  {name}: {run.seconds:.1f} s; otherwise in the twin:", flush=True)
            print("".join(f"    {sentence}\n" for sentence in twins[name].left_out), end="", flush=True)
    return found


@pytest.fixture(params=CHOSEN, ids=lambda chosen: "-".join(chosen))
def started(request: pytest.FixtureRequest, runs: dict[tuple[str, str], tuple[Twin, Run]]) -> Started:
    twin, run = runs[request.param]
    assert run.error == ""
    return Started(PLANS[request.param[1]], twin, run, read_guest(run.console))


def test_the_guest_sees_what_was_planned(started: Started) -> None:
    check_nodes(started)
    check_devices(started)
    check_gpus(started)


def check_nodes(started: Started) -> None:
    """NUMA nodes and distances are those of the plan, by the numbers that the plan gave them."""
    cells = view_of_plan(started.plan).cells
    assert started.guest.domains == frozenset(cells)
    for cell, cpus in started.twin.cells:
        assert cpus in started.guest.cpus.values(), f"no node has the CPUs of cell {cell}"
    if len(cells) <= GUEST_NODES:
        assert len(started.guest.cpus) == len(cells)
    if len(cells) > 1:
        assert started.guest.distances == planned_distances(started.plan)


def planned_distances(plan: DomainPlan) -> tuple[tuple[int, ...], ...]:
    """From the cells, or from QEMU's arguments where libvirt has no element for them."""
    if all(cell.distances for cell in plan.cells):
        return tuple(tuple(value for _cell, value in cell.distances) for cell in plan.cells)
    count = len(view_of_plan(plan).cells)
    rows = [[10] * count for _row in range(count)]
    for argument in plan.qemu_args:
        if argument.startswith("dist,"):
            values = dict(part.split("=") for part in argument.split(",")[1:])
            rows[int(values["src"])][int(values["dst"])] = int(values["val"])
    return tuple(map(tuple, rows))


def check_devices(started: Started) -> None:
    """Each emulated device is where it was planned, and none is beside a GPU."""
    plan = started.plan
    for place in [*(disk.address for disk in plan.disks), *(interface.address for interface in plan.interfaces),
                  plan.channel_address, plan.rng_address]:
        assert started.device(place).vendor == 0x1AF4
    ports = {started.path(hostdev.address) for hostdev in plan.hostdevs}
    for device in started.guest.devices:
        if device.vendor == 0x1AF4:
            assert not any(device.path[:-1] == port for port in ports)
    assert started.guest.iommus == len(plan.smmus)


def check_gpus(started: Started) -> None:
    """Each GPU: its initiators, its node, and every BAR of the planned size with an address in the window."""
    plan, guest = started.plan, started.guest
    expected = set()
    for alias, node in view_of_plan(plan).initiators:
        (hostdev,) = (item for item in plan.hostdevs if item.alias == alias)
        expected.add((node, started.device(hostdev.address).address))
    assert guest.initiators == expected
    starts: list[tuple[int, int]] = []
    for hostdev in plan.hostdevs:
        device = started.device(hostdev.address)
        assert (device.vendor, device.device) == (0x1B36, 0x0005)
        check_node(started, hostdev, device)
        found = [device] if len(started.twin.bars[hostdev.alias]) < 2 else [device, started.device(hostdev.address, 7)]
        for size, holder in zip(started.twin.bars[hostdev.alias], found, strict=False):
            start, seen = holder.bars[2]
            assert seen == size and start % size == 0 and start > 0
            starts.append((start, start + size))
    check_window(plan, starts)


def check_node(started: Started, hostdev: Hostdev, device: GuestDevice) -> None:
    expanders = {f"{bus.bus_number:02x}": bus.cell for bus in started.plan.expanders}
    cell = expanders.get(device.root.partition(":")[2])
    if cell is not None and len(started.twin.cells) + 8 * len(started.plan.hostdevs) > 1:
        assert started.guest.cpus[device.node] == dict(started.twin.cells)[cell], hostdev.alias


def check_window(plan: DomainPlan, ranges: list[tuple[int, int]]) -> None:
    """All of them lie in one aligned window of the planned size, and none over another."""
    ordered = sorted(ranges)
    assert all(first[1] <= second[0] for first, second in zip(ordered, ordered[1:], strict=False))
    if plan.mmio_window is not None and ordered:
        window = ordered[0][0] // plan.mmio_window
        assert ordered[-1][1] <= (window + 1) * plan.mmio_window
