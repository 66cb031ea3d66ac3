# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts to plans: profiles, sizes, NUMA, PCI, pinning, firmware, remarks."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.facts import (
    format_cpus,
    next_power_of_two,
    parse_cpus,
)
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.model import DomainPlan
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.planner import plan_domain
from ansible_collections.nvgrace.passthrough.tests.unit._domain.descriptions import (
    COMPAT_QEMU,
    GIB,
    MIB,
    NATIVE_QEMU,
    OVMF,
    blackwell_gpus,
    gh200,
    gh200_regions,
    grace_host,
    native_host,
    no_accel_host,
    regions,
    vm,
    x86_card,
    x86_host,
)

TIB = 1024 * GIB


def grace_plan(host: dict[str, Any] | None = None, found: list[dict[str, Any]] | None = None,
               seen: list[dict[str, Any]] | None = None, **changes: Any) -> DomainPlan:
    return plan_domain(vm(**changes), grace_host() if host is None else host, found or [gh200()],
                       [gh200_regions()] if seen is None else seen)


def used(plan: DomainPlan, name: str) -> str:
    return next(feature.used for feature in plan.features if feature.name.startswith(name))


# Small functions -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("text", "numbers"), [
    ("", ()), ("0", (0,)), ("0-3", (0, 1, 2, 3)), ("0-1,8", (0, 1, 8)), ("2,4-5", (2, 4, 5))])
def test_cpu_lists(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_cpus(text) == numbers
    assert format_cpus(numbers) == text


@pytest.mark.parametrize(("value", "power"), [(0, 1), (1, 1), (2, 2), (3, 4), (96 * GIB, 128 * GIB), (TIB, TIB)])
def test_next_power_of_two(value: int, power: int) -> None:
    assert next_power_of_two(value) == power


# Profiles --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("host", "changes", "profile"), [
    (grace_host(), {}, "compat"),
    (no_accel_host(), {}, "no-accel"),
    (native_host(), {}, "native"),
    (native_host(), {"type": "qemu"}, "no-accel"),
    (native_host(), {"profile": "compat"}, "compat"),
    (grace_host(libvirt="9.7.0", libvirt_features={"ras": False}), {}, "compat"),
])
def test_the_best_profile_is_taken(host: dict[str, Any], changes: dict[str, Any], profile: str) -> None:
    assert grace_plan(host, **changes).profile == profile


def old_qemu() -> dict[str, Any]:
    return grace_host(qemu="8.2.2", qemu_features={"iommufd": False})


@pytest.mark.parametrize(("host", "changes", "message"), [
    (old_qemu(), {}, "QEMU 10.0 or later .*found libvirt 11.3.0 and QEMU 8.2.2"),
    (grace_host(libvirt="9.0.0"), {}, "libvirt 9.0.0 is too old"),
    (grace_host(), {"profile": "native"}, "libvirt 12.7 or later"),
    (grace_host(), {"profile": "no-accel"}, "libvirt 11.8 or later"),
    (grace_host(), {"profile": "x86"}, "is for x86_64; this host is aarch64"),
    (native_host(), {"profile": "native", "type": "qemu"}, "needs type kvm"),
    (grace_host(qemu_features={**COMPAT_QEMU, "pasid_fork": True}), {}, "NVIDIA's fork .*pasid="),
    (grace_host(qemu_features={**COMPAT_QEMU, "egm_fork": True}), {}, "NVIDIA's fork .*EGM"),
    ({"kernel": {"machine": "riscv64"}, "qemu_features": NATIVE_QEMU}, {}, "this host is riscv64"),
])
def test_hosts_that_are_refused(host: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PassthroughError, match=message):
        grace_plan(host, **changes)


def test_without_facts_the_profile_has_to_be_named() -> None:
    with pytest.raises(PassthroughError, match="set profile to"):
        plan_domain(vm(), None, [gh200()], [])
    plan = plan_domain(vm(profile="compat"), None, [gh200()], [])
    assert (plan.profile, plan.ras, plan.pinning.emulator) == ("compat", False, "")
    assert plan.firmware.path == "/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd"
    assert plan_domain(vm(profile="native"), None, [gh200()], []).ras
    with pytest.raises(PassthroughError, match="needs type kvm"):
        plan_domain(vm(profile="native", type="qemu"), None, [gh200()], [])


def test_iommufd_by_device_where_everything_has_it() -> None:
    host = no_accel_host()
    host["libvirt_features"] = {**host["libvirt_features"], "iommufd": True}
    host["iommu"] = {"iommufd": True, "cdev": True}
    plan = grace_plan(host)
    assert (plan.iommufd, plan.hostdevs[0].iommufd) == (False, True)
    host["iommu"] = {"iommufd": True, "cdev": False}
    assert not grace_plan(host).hostdevs[0].iommufd


def without(host: dict[str, Any], section: str, feature: str) -> dict[str, Any]:
    return {**host, section: {**host[section], feature: False}}


def test_command_queues_are_on_off_or_left_to_qemu() -> None:
    def queues(host: dict[str, Any], **changes: Any) -> list[bool | None]:
        return [smmu.cmdqv for smmu in grace_plan(host, **changes).smmus]

    assert queues(native_host(), cmdqv=True, hugepages="512M") == [True]
    assert queues(native_host()) == [False]
    assert queues(without(native_host(), "qemu_features", "arm_smmuv3_cmdqv")) == [None]
    assert queues(grace_host()) == []
    assert plan_domain(vm(profile="native", cmdqv=True, hugepages="2M"), None, [gh200()], []).smmus[0].cmdqv


@pytest.mark.parametrize(("host", "changes", "message"), [
    (native_host(), {"hugepages": None}, "asks for cmdqv without hugepages"),
    (grace_host(), {}, "only the profile native has; here it would have the profile compat"),
    (without(native_host(), "qemu_features", "arm_smmuv3_cmdqv"), {}, "needs QEMU 11.1 or later"),
    (without(native_host(), "libvirt_features", "iommu_driver_cmdqv"), {}, "needs libvirt 12.7 or later"),
    (native_host(), {"cmdqv": "maybe"}, "cmdqv of VM gpu-vm is 'maybe': give true or false"),
])
def test_command_queues_are_refused(host: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PassthroughError, match=message):
        grace_plan(host, **{"cmdqv": True, "hugepages": "512M", **changes})


# Sizes -----------------------------------------------------------------------------------------------------------

def predicted(source: str, bar: int) -> list[dict[str, Any]]:
    return [regions("0009:01:00.0", {2: GIB, 4: bar}) | {"verified_at": None, "memory": {"source": source}}]


@pytest.mark.parametrize(("seen", "gpu", "reserve", "source"), [
    ([gh200_regions()], {}, 256 * GIB, "the regions that region_verify saw"),
    ([regions("0009:01:00.0", {2: GIB, 4: 2 * GIB})], {}, 4 * GIB, "the regions that region_verify saw"),
    (predicted("expected_memory", 256 * GIB), {}, 512 * GIB,
     "the regions that region_verify predicted from expected_memory"),
    ([], {"expected_memory": 2560 * MIB}, 4 * GIB, "the memory that the description gives"),
    ([], {"expected_memory": 2560 * MIB, "family": "grace-blackwell"}, 8 * GIB,
     "the memory that the description gives"),
    ([], {}, 256 * GIB, "the product table"),
])
def test_where_the_sizes_come_from(seen: list[dict[str, Any]], gpu: dict[str, Any], reserve: int, source: str) -> None:
    plan = grace_plan(found=[{**gh200(), **gpu}], seen=seen)
    assert plan.overrides[0].properties == (("pref64-reserve", reserve), ("io-reserve", 0))
    assert next(feature.why for feature in plan.features if feature.name == "bar-sizes 0009:01:00.0") == source


def test_a_gpu_of_unknown_size_is_refused() -> None:
    with pytest.raises(PassthroughError, match="0009:01:00.0: the size of its memory is not known"):
        grace_plan(found=[{**gh200(), "device": "ffff"}], seen=[])


def test_a_gpu_that_nobody_asked_for_may_be_of_unknown_size() -> None:
    other = {**gh200("0009:02:00.0"), "device": "ffff"}
    assert len(grace_plan(found=[gh200(), other]).hostdevs) == 1


@pytest.mark.parametrize(("device", "count", "window"), [
    ("2941", 1, TIB), ("2941", 2, 2 * TIB), ("2941", 4, 4 * TIB), ("31c2", 4, 8 * TIB)])
def test_the_mmio_window(device: str, count: int, window: int) -> None:
    plan = grace_plan(grace_host(2, 2), blackwell_gpus(device, 4), [], gpus=count)
    assert plan.mmio_window == window
    assert plan.qemu_args[:2] == ("-machine", f"highmem-mmio-size={window}")


def test_a_window_that_qemu_cannot_make() -> None:
    huge = [{**gh200(f"0009:0{index}:00.0"), "expected_memory": 2 * TIB, "device": "ffff"} for index in range(4)]
    with pytest.raises(PassthroughError, match="goes up to 16 TiB"):
        grace_plan(found=huge, seen=[], gpus=4)


# GPUs ------------------------------------------------------------------------------------------------------------

def test_the_order_of_the_description_is_kept() -> None:
    plan = plan_domain(vm(gpus=["0018:06:00.0", "0008:06:00.0"]), grace_host(2, 2), blackwell_gpus("2941", 4), [])
    assert [hostdev.domain for hostdev in plan.hostdevs] == [0x18, 0x8]
    assert [bus.cell for bus in plan.expanders] == [1, 0]


@pytest.mark.parametrize(("wanted", "message"), [
    (2, "wants 2 GPUs and gpu_info found 1"),
    (["0009:02:00.0"], "wants the GPU 0009:02:00.0, which gpu_info did not find"),
])
def test_gpus_that_are_not_there(wanted: Any, message: str) -> None:
    with pytest.raises(PassthroughError, match=message):
        plan_domain(vm(gpus=wanted), grace_host(), [gh200()], [])


def test_a_card_keeps_its_functions_together() -> None:
    plan = plan_domain(vm(vcpus=8), x86_host(), [x86_card()], [])
    assert [(dev.alias, dev.function, dev.address.function, dev.address.multifunction) for dev in plan.hostdevs] == [
        ("ua-gpu0", 0, 0, True), ("ua-gpu0-1", 1, 1, False)]
    assert plan.hostdevs[0].address.bus == plan.hostdevs[1].address.bus
    assert (plan.machine, plan.expanders, plan.mmio_window, plan.overrides) == ("q35", (), None, ())


def test_coherent_memory_needs_a_grace_profile() -> None:
    with pytest.raises(PassthroughError, match="has coherent memory"):
        plan_domain(vm(), x86_host(), [gh200()], [])


def test_a_gpu_without_64_bit_bars_is_refused_on_arm64() -> None:
    card = {**x86_card(), "bars": []}
    with pytest.raises(PassthroughError, match="tells no 64-bit BAR"):
        plan_domain(vm(), grace_host(), [card], [])


# NUMA ------------------------------------------------------------------------------------------------------------

def test_initiators_and_distances_follow_the_host() -> None:
    plan = grace_plan(native_host())
    assert [cell.host_node for cell in plan.cells] == list(range(9))
    assert plan.hostdevs[0].nodeset == "1-8"
    assert plan.cells[0].distances == ((0, 10), *((node, 80) for node in range(1, 9)))
    assert plan.cells[1].distances[:3] == ((0, 80), (1, 10), (2, 11))
    assert used(plan, "distances") == "host SLIT"


def test_a_host_distance_of_10_becomes_11() -> None:
    host = native_host()
    for node in host["numa"]["nodes"]:
        node["distances"] = [10] * 9
    assert grace_plan(host).cells[0].distances[1] == (1, 11)


@pytest.mark.parametrize("forget", [
    lambda host, gpu: host["numa"]["nodes"][3].update(distances=[]),
    lambda host, gpu: gpu.update(generic_initiator_nodes=[]),
    lambda host, gpu: host["numa"].update(nodes=host["numa"]["nodes"][:1]),
])
def test_nvidias_distances_where_the_host_does_not_tell(forget: Any) -> None:
    host, gpu = native_host(), gh200()
    forget(host, gpu)
    plan = grace_plan(host, [gpu])
    assert used(plan, "distances") == "fallback"
    assert plan.cells[0].distances == ((0, 10), *((node, 80) for node in range(1, 9)))


def test_fallback_distances_of_two_sockets() -> None:
    gpus = [{**gpu, "generic_initiator_nodes": []} for gpu in blackwell_gpus("2941", 4)]
    plan = plan_domain(vm(gpus=4), native_host(2, 2), gpus, [])
    from_cpu = [value for _cell, value in plan.cells[0].distances]
    assert from_cpu == [10, 40] + [80] * 16 + [120] * 16
    assert [value for _cell, value in plan.cells[2].distances] == [80, 120, 10] + [11] * 7 + [40] * 24


def test_compat_makes_empty_nodes_on_the_command_line() -> None:
    plan = grace_plan()
    assert [cell.id for cell in plan.cells] == [0]
    assert plan.qemu_args.count("-object") == 8
    assert "node,nodeid=8" in plan.qemu_args
    assert "dist,src=0,dst=8,val=80" in plan.qemu_args
    assert "acpi-generic-initiator,id=gi7,pci-dev=ua-gpu0,node=8" in plan.qemu_args
    assert "-device" not in plan.qemu_args


def test_without_initiators_libvirt_gets_the_distances() -> None:
    plan = plan_domain(vm(gpus=2, generic_initiators="none", host_nodes=[0, 1]), grace_host(2, 1),
                       blackwell_gpus("2941", 2), [])
    assert [cell.distances for cell in plan.cells] == [((0, 10), (1, 40)), ((0, 40), (1, 10))]
    assert plan.qemu_args == ("-machine", f"highmem-mmio-size={2 * TIB}")


@pytest.mark.parametrize(("changes", "message"), [
    ({"vcpus": 63}, "must divide by 2"),
    ({"memory": f"{255 * GIB + MIB}"}, "must divide by 2"),
    ({"host_nodes": [0, 9]}, "names node 9, which has no CPUs"),
    ({"hugepages": "1G"}, "huge pages of 1048576 KiB and this host has: 2048 KiB, 524288 KiB"),
    ({"hugepages": "512M", "memory": "524800MiB"}, "must divide by 2"),
])
def test_shares_that_do_not_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PassthroughError, match=message):
        plan_domain(vm(gpus=4, **changes), grace_host(2, 2), blackwell_gpus("2941", 4), [])


def test_a_gpu_away_from_its_node_goes_to_the_nearest_cell() -> None:
    host = grace_host(2, 2)
    plan = plan_domain(vm(gpus=["0018:06:00.0"], host_nodes=[0]), host, blackwell_gpus("2941", 4), [])
    assert plan.expanders[0].cell == 0
    unknown = [{**gh200(), "numa_node": -1}]
    assert grace_plan(found=unknown).expanders[0].cell == 0


def test_bus_numbers_stay_above_the_controllers() -> None:
    disks = [{"path": f"/{number}"} for number in range(16)]
    networks = [{"network": "default"}] * 8
    eight = [gh200(f"0009:0{index}:00.0", 0, 1) for index in range(8)]
    plan = plan_domain(vm(gpus=8, disks=disks, networks=networks, generic_initiators="none"), grace_host(), eight, [])
    indexes = [item.index for item in (*plan.expanders, *plan.root_ports)]
    numbers = [bus.bus_number for bus in plan.expanders]
    assert min(numbers) > max(indexes) == 42
    assert numbers == list(range(43, 59, 2))


# Pinning ---------------------------------------------------------------------------------------------------------

def test_pins_leave_cpus_of_the_first_node_to_qemu() -> None:
    plan = plan_domain(vm(gpus=4, vcpus=8), grace_host(2, 2), blackwell_gpus("2941", 4), [])
    assert plan.pinning.vcpus == ((0, 4), (1, 5), (2, 6), (3, 7), (4, 72), (5, 73), (6, 74), (7, 75))
    assert (plan.pinning.emulator, plan.pinning.iothread) == ("0-2", "3")
    assert plan.pinning.memory == ((0, 0), (1, 1))


@pytest.mark.parametrize(("vcpus", "emulator", "iothread"), [(71, "0", "0"), (70, "0", "1"), (69, "0-1", "2")])
def test_pins_with_few_spare_cpus(vcpus: int, emulator: str, iothread: str) -> None:
    pinning = grace_plan(vcpus=vcpus).pinning
    assert (pinning.emulator, pinning.iothread) == (emulator, iothread)
    assert len({cpu for _vcpu, cpu in pinning.vcpus}) == vcpus


def test_no_pins_where_there_are_too_few_cpus() -> None:
    plan = grace_plan(vcpus=72)
    assert plan.pinning.vcpus == ()
    assert plan.warnings == ("VM gpu-vm is not pinned: each host node would need 72 CPUs, the first one more for QEMU, "
                             "and there are 72.",)
    assert grace_plan(vcpus=72, pinning="none").warnings == ()


# Firmware --------------------------------------------------------------------------------------------------------

def test_the_image_without_secure_boot_is_taken() -> None:
    assert grace_plan().firmware.path == "/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd"
    plan = plan_domain(vm(vcpus=8), x86_host(), [x86_card()], [])
    assert plan.firmware.path == "/usr/share/OVMF/OVMF_CODE_4M.fd"


def test_firmware_can_be_named() -> None:
    plan = grace_plan(firmware={"loader": "/fw/code.fd", "nvram_template": "/fw/vars.fd"})
    assert (plan.firmware.path, plan.firmware.nvram_template) == ("/fw/code.fd", "/fw/vars.fd")
    with pytest.raises(PassthroughError, match="both loader and nvram_template"):
        grace_plan(firmware={"loader": "/fw/code.fd"})


@pytest.mark.parametrize(("host", "gpu", "package"), [
    (grace_host() | {"firmware": {"images": [{"path": "/usr/share/AAVMF/AAVMF_CODE.ms.fd", "vars": "/v",
                                              "secure_boot": True}]}}, gh200(), "qemu-efi-aarch64"),
    (x86_host() | {"firmware": {"images": OVMF[:1]}}, x86_card(), "ovmf"),
])
def test_no_plain_firmware(host: dict[str, Any], gpu: dict[str, Any], package: str) -> None:
    with pytest.raises(PassthroughError, match=f"install {package}"):
        plan_domain(vm(vcpus=8), host, [gpu], [])


# Remarks ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("host", "gpu", "changes", "warning"), [
    (grace_host() | {"kvm": {"present": True, "cacheable_pfnmap": False}}, gh200(), {}, "capability 243"),
    (grace_host(), {**gh200(), "holders": [{"pid": 1, "vm": "other"}]}, {}, "in use by the VM other"),
    (grace_host(), {**gh200(), "generic_initiator_nodes": [1, 2, 3]}, {}, "has 3 generic-initiator nodes"),
    (x86_host(), x86_card(), {"vcpus": 8, "host_nodes": [0, 1]}, "does not see which NUMA node"),
])
def test_warnings(host: dict[str, Any], gpu: dict[str, Any], changes: dict[str, Any], warning: str) -> None:
    plan = plan_domain(vm(**changes), host, [gpu], [])
    assert [text for text in plan.warnings if warning in text]


def test_its_own_run_is_no_warning() -> None:
    gpu = {**gh200(), "holders": [{"pid": 1, "vm": "gpu-vm"}, {"pid": 2, "vm": None}]}
    assert grace_plan(found=[gpu]).warnings == ()


def test_many_nodes_need_a_larger_kernel_limit() -> None:
    plan = plan_domain(vm(gpus=2), grace_host(2, 2), blackwell_gpus("2941", 4), [])
    assert [text for text in plan.warnings if "CONFIG_NODES_SHIFT" in text and "17 NUMA nodes" in text]


@pytest.mark.parametrize(("changes", "mode", "model"), [
    ({}, "host-passthrough", ""), ({"type": "qemu"}, "custom", "neoverse-n1")])
def test_cpu_models(changes: dict[str, Any], mode: str, model: str) -> None:
    cpu = grace_plan(**changes).cpu
    assert (cpu.mode, cpu.model) == (mode, model)
