# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner: a description, the host and its GPUs in, one DomainPlan out; the same input, the same plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Optional

from .._core.errors import PassthroughError
from .facts import DEFAULT_EMULATOR, format_cpus, parse_gpus, parse_host
from .firmware import choose_firmware
from .model import (
    KIB,
    Cell,
    CpuModel,
    Disk,
    DiskRequest,
    DomainPlan,
    Gpu,
    Hostdev,
    HostView,
    Interface,
    NetworkRequest,
    PciAddress,
    Smmu,
    VmRequest,
)
from .numa import Numa, plan_numa, plan_pinning
from .pci import PciPlan, gpu_alias, mmio_window, plan_pci
from .profile import Profile, choose_profile
from .qemu_args import initiator_arguments, window_arguments
from .remarks import describe_choices, warn
from .request import parse_vm

NVRAM_DIR = "/var/lib/libvirt/qemu/nvram"
_MOST_QUEUES = 8
_MOST_ALLOCATION_THREADS = 16


def plan_domain(vm: Mapping[str, Any], host: Optional[Mapping[str, Any]], gpus: Sequence[Mapping[str, Any]],
                regions: Sequence[Mapping[str, Any]]) -> DomainPlan:
    """Raises PassthroughError with one sentence where the description or the host cannot give a correct domain.

    ``host``, ``gpus`` and ``regions`` are what host_info, gpu_info and region_verify return.
    """
    request = parse_vm(dict(vm))
    view = parse_host(host)
    chosen = select_gpus(request, parse_gpus(_wanted(request, gpus), regions))
    profile = choose_profile(request, view)
    _check_gpus(request, profile, chosen)
    _check_hugepages(request, view)
    return _assemble(request, view, chosen, profile)


def _wanted(request: VmRequest, gpus: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Only the described GPUs, so that one of unknown size that nobody asked for does not stop the run."""
    if request.gpu_addresses:
        return [gpu for gpu in gpus if gpu["address"] in request.gpu_addresses]
    return sorted(gpus, key=lambda gpu: str(gpu["address"]))[:request.gpu_count]


def select_gpus(request: VmRequest, gpus: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    """The GPUs in the order of the description; a count takes the first ones by address."""
    by_address = {gpu.address: gpu for gpu in gpus}
    if request.gpu_count:
        if len(gpus) < request.gpu_count:
            raise PassthroughError(f"VM {request.name} wants {request.gpu_count} GPUs and gpu_info found {len(gpus)}.")
        return gpus[:request.gpu_count]
    for address in request.gpu_addresses:
        if address not in by_address:
            raise PassthroughError(f"VM {request.name} wants the GPU {address}, which gpu_info did not find: correct "
                                   "the address, or add it to nvgrace_gpus.")
    return tuple(by_address[address] for address in request.gpu_addresses)


def _check_gpus(request: VmRequest, profile: Profile, gpus: tuple[Gpu, ...]) -> None:
    for gpu in gpus:
        if gpu.coherent and profile.name == "x86":
            raise PassthroughError(f"VM {request.name}: {gpu.address} ({gpu.product}) has coherent memory and cannot "
                                   "be given to an x86 domain.")
        if not gpu.bars and profile.name != "x86":
            raise PassthroughError(f"{gpu.address}: gpu_info tells no 64-bit BAR, so the guest's MMIO window cannot be "
                                   "sized; run region_verify first.")


def _check_hugepages(request: VmRequest, host: HostView) -> None:
    if request.hugepages and host.known and request.hugepages not in host.hugepages:
        sizes = ", ".join(f"{size // KIB} KiB" for size in host.hugepages) or "none"
        raise PassthroughError(f"VM {request.name} wants huge pages of {request.hugepages // KIB} KiB and this host "
                               f"has: {sizes}.")


def _assemble(request: VmRequest, host: HostView, gpus: tuple[Gpu, ...], profile: Profile) -> DomainPlan:
    numa = plan_numa(request, host, gpus)
    pinning, pin_reason = plan_pinning(request, host, numa.cpu_cells)
    grace = profile.arch == "aarch64"
    # the guest agent's channel and the random number generator follow disks and networks
    emulated = len(request.disks) + len(request.networks) + 2
    pci = plan_pci(emulated, gpus, numa.gpu_cell, expander=grace, reserve=grace and not profile.accel)
    places = iter(pci.emulated)
    window = mmio_window(gpus) if grace else None
    by_libvirt = profile.initiators_by_libvirt or not any(numa.initiators)
    return DomainPlan(
        name=request.name, uuid=request.uuid, virt_type=request.virt_type, arch=profile.arch,
        machine="virt" if grace else "q35", profile=profile.name,
        emulator=host.emulator or DEFAULT_EMULATOR[profile.arch],
        memory=request.memory, vcpus=request.vcpus, iothreads=1 if request.disks else 0,
        allocation_threads=min(request.vcpus, _MOST_ALLOCATION_THREADS), hugepages=request.hugepages,
        cpu=_cpu(request, profile), sockets=len(numa.cpu_cells), ras=profile.ras,
        firmware=choose_firmware(request, host, profile.arch), nvram=f"{NVRAM_DIR}/{request.name}_VARS.fd",
        boot=request.boot, serial_log=request.serial_log, extra_xml=request.extra_xml,
        iommufd=profile.name == "native", mmio_window=window, window_by_libvirt=profile.window_by_libvirt,
        cells=_cells(numa, by_libvirt), pinning=pinning, expanders=pci.expanders, root_ports=pci.root_ports,
        disks=tuple(_disk(disk, next(places)) for disk in request.disks),
        interfaces=tuple(_interface(network, request, next(places)) for network in request.networks),
        hostdevs=_hostdevs(pci, numa, profile),
        smmus=tuple(Smmu(expander.index, profile.cmdqv) for expander in pci.expanders) if profile.accel else (),
        channel_address=next(places), rng_address=next(places),
        qemu_args=_arguments(numa, None if profile.window_by_libvirt else window, by_libvirt),
        overrides=pci.overrides,
        features=(*profile.features, *describe_choices(request, gpus, numa, pinning, pin_reason)),
        warnings=warn(request, host, gpus, numa, pinning, pin_reason))


def _cpu(request: VmRequest, profile: Profile) -> CpuModel:
    """Without KVM the host's model cannot be passed on; "max" hangs in some AAVMF builds, neoverse-n1 does not."""
    if request.virt_type == "kvm":
        return CpuModel("host-passthrough")
    return CpuModel("custom", "neoverse-n1") if profile.arch == "aarch64" else CpuModel("maximum")


def _cells(numa: Numa, by_libvirt: bool) -> tuple[Cell, ...]:
    """libvirt below 11.8 makes a memory backend of size 0 for an empty cell, which QEMU refuses: CPU cells only."""
    if not by_libvirt:
        return numa.cpu_cells
    if len(numa.cells) == 1:
        return numa.cells
    return tuple(replace(cell, distances=tuple(enumerate(numa.distances[cell.id]))) for cell in numa.cells)


def _disk(disk: DiskRequest, place: PciAddress) -> Disk:
    return Disk(disk.path, disk.path.startswith("/dev/"), disk.format, disk.target, place)


def _interface(network: NetworkRequest, request: VmRequest, place: PciAddress) -> Interface:
    return Interface(network.kind, network.name, network.mac, min(request.vcpus, _MOST_QUEUES),
                     request.virt_type == "kvm", place)


def _hostdevs(pci: PciPlan, numa: Numa, profile: Profile) -> tuple[Hostdev, ...]:
    """The initiators belong to the GPU function itself, not to the functions beside it."""
    nodesets = {gpu_alias(number): format_cpus(nodes) for number, nodes in enumerate(numa.initiators)}
    by_libvirt = profile.initiators_by_libvirt
    return tuple(replace(hostdev, nodeset=nodesets.get(hostdev.alias, "") if by_libvirt else "",
                         iommufd=profile.iommufd) for hostdev in pci.hostdevs)


def _arguments(numa: Numa, window: Optional[int], by_libvirt: bool) -> tuple[str, ...]:
    arguments = [] if window is None else window_arguments(window)
    if not by_libvirt:
        arguments += initiator_arguments(numa, tuple(gpu_alias(number) for number in range(len(numa.initiators))))
    return tuple(arguments)
