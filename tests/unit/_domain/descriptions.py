# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts, GPUs and VMs as host_info, gpu_info and region_verify describe them, for all tests of domains."""

from __future__ import annotations

from typing import Any, Callable

GIB = 1 << 30
MIB = 1 << 20

COMPAT_QEMU = {"highmem_mmio_size": True, "acpi_generic_initiator": True, "iommufd": True}
NO_ACCEL_LIBVIRT = {"ras": True, "clusters": True, "acpi_nodeset": True, "pcihole64_virt": True}
NATIVE_LIBVIRT = {**NO_ACCEL_LIBVIRT, "iommufd": True, "iommu_driver_accel": True, "iommu_driver_cmdqv": True}
NATIVE_QEMU = {**COMPAT_QEMU, "arm_smmuv3_device": True, "arm_smmuv3_accel": True,
               "arm_smmuv3_cmdqv": True}

AAVMF = [
    {"path": "/usr/share/AAVMF/AAVMF_CODE.ms.fd", "vars": "/usr/share/AAVMF/AAVMF_VARS.ms.fd", "secure_boot": True},
    {"path": "/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", "vars": "/usr/share/AAVMF/AAVMF_VARS.fd",
     "secure_boot": False},
]
OVMF = [
    {"path": "/usr/share/ovmf/OVMF.amdsev.fd", "vars": "", "secure_boot": False},
    {"path": "/usr/share/OVMF/OVMF_CODE_4M.fd", "vars": "/usr/share/OVMF/OVMF_VARS_4M.fd", "secure_boot": False},
]


def slit(sockets: int, gpus_per_socket: int, per_gpu: int = 8) -> list[list[int]]:
    """NVIDIA's distances for a host: CPU nodes first, then the nodes of each GPU."""
    owner: list[tuple[int, int]] = [(socket, -1) for socket in range(sockets)]
    for gpu in range(sockets * gpus_per_socket):
        owner += [(gpu // gpus_per_socket, gpu)] * per_gpu

    def distance(first: int, second: int) -> int:
        (socket, gpu), (other_socket, other_gpu) = owner[first], owner[second]
        if first == second:
            return 10
        if gpu < 0 and other_gpu < 0:
            return 40
        if gpu >= 0 and other_gpu >= 0:
            return 11 if gpu == other_gpu else 40
        return 80 if socket == other_socket else 120

    return [[distance(first, second) for second in range(len(owner))] for first in range(len(owner))]


def grace_host(sockets: int = 1, gpus_per_socket: int = 1, libvirt: str = "11.3.0", qemu: str = "10.0.13",
               libvirt_features: dict[str, bool] | None = None, qemu_features: dict[str, bool] | None = None,
               iommufd: bool = False) -> dict[str, Any]:
    rows = slit(sockets, gpus_per_socket)
    nodes = [{"id": index, "cpus": f"{index * 72}-{index * 72 + 71}" if index < sockets else "",
              "memory": 480 * GIB if index < sockets else 0, "distances": row,
              "generic_initiator": index >= sockets} for index, row in enumerate(rows)]
    return {
        "kernel": {"machine": "aarch64"},
        "libvirt": {"version": libvirt}, "libvirt_features": libvirt_features or {"ras": True},
        "qemu": {"path": "/usr/bin/qemu-system-aarch64", "version": qemu},
        "qemu_features": qemu_features or COMPAT_QEMU,
        "iommu": {"iommufd": iommufd, "cdev": iommufd},
        "kvm": {"present": True, "cacheable_pfnmap": True},
        "hugepages": [{"size": 2 * MIB, "total": 0, "free": 0}, {"size": 512 * MIB, "total": 800, "free": 800}],
        "numa": {"nodes": nodes},
        "firmware": {"uefi": True, "images": AAVMF},
    }


def native_host(sockets: int = 1, gpus_per_socket: int = 1) -> dict[str, Any]:
    return grace_host(sockets, gpus_per_socket, "12.8.0", "11.1.2", NATIVE_LIBVIRT, NATIVE_QEMU, iommufd=True)


def no_accel_host(sockets: int = 1, gpus_per_socket: int = 1, iommufd: bool = False) -> dict[str, Any]:
    return grace_host(sockets, gpus_per_socket, "12.0.0", "10.2.1", {**NO_ACCEL_LIBVIRT, "iommufd": iommufd},
                      COMPAT_QEMU, iommufd)


def x86_host() -> dict[str, Any]:
    return {
        "kernel": {"machine": "x86_64"},
        "libvirt": {"version": "11.3.0"}, "qemu": {"path": "/usr/bin/qemu-system-x86_64", "version": "10.0.13"},
        "kvm": {"present": True, "cacheable_pfnmap": None},
        "hugepages": [{"size": GIB, "total": 200, "free": 200}],
        "numa": {"nodes": [{"id": 0, "cpus": "0-31", "memory": 256 * GIB, "distances": [10, 21]},
                           {"id": 1, "cpus": "32-63", "memory": 256 * GIB, "distances": [21, 10]}]},
        "firmware": {"uefi": True, "images": OVMF},
    }


def gh200(address: str = "0009:01:00.0", node: int = 0, first_initiator: int = 1) -> dict[str, Any]:
    return {"address": address, "vendor": "10de", "device": "2342", "product": "GH200 120GB", "coherent": True,
            "family": "grace-hopper", "numa_node": node, "holders": [],
            "generic_initiator_nodes": list(range(first_initiator, first_initiator + 8)),
            "group_members": [{"address": address, "kind": "gpu"}],
            "bars": [{"index": 0, "size": 16 * MIB, "bits64": True}]}


def gb(device: str, address: str, node: int, first_initiator: int) -> dict[str, Any]:
    return {**gh200(address, node, first_initiator), "device": device, "family": "grace-blackwell",
            "product": "GB200" if device == "2941" else "GB300"}


def blackwell_gpus(device: str, count: int, sockets: int = 2) -> list[dict[str, Any]]:
    """As on a GB200 or GB300 tray: two GPUs a socket, domains 0008 and 0009, 0018 and 0019."""
    addresses = ["0008:06:00.0", "0009:06:00.0", "0018:06:00.0", "0019:06:00.0"]
    return [gb(device, addresses[index], index // 2, sockets + 8 * index) for index in range(count)]


def x86_card(address: str = "0000:41:00") -> dict[str, Any]:
    return {"address": f"{address}.0", "vendor": "10de", "device": "2684", "product": None, "coherent": False,
            "family": "x86", "numa_node": 0, "generic_initiator_nodes": [], "holders": [],
            "group_members": [{"address": "0000:40:01.0", "kind": "bridge"}, {"address": f"{address}.0", "kind": "gpu"},
                              {"address": f"{address}.1", "kind": "audio"}],
            "bars": [{"index": 0, "size": 16 * MIB, "bits64": False}, {"index": 1, "size": 32 * GIB, "bits64": True},
                     {"index": 3, "size": 32 * MIB, "bits64": True}]}


def h100(address: str, node: int) -> dict[str, Any]:
    return {**x86_card(address.rpartition(".")[0]), "address": address, "device": "2330", "product": "H100 SXM5 80GB",
            "numa_node": node, "group_members": [{"address": address, "kind": "gpu"}],
            "bars": [{"index": 0, "size": 16 * MIB, "bits64": True}, {"index": 2, "size": 128 * GIB, "bits64": True},
                     {"index": 4, "size": 32 * MIB, "bits64": True}]}


def regions(address: str, bars: dict[int, int]) -> dict[str, Any]:
    """What region_verify returns for a GPU; ``bars`` are sizes by region index."""
    return {"address": address, "verdict": "ok", "verified_at": "2026-11-23T08:53:27Z", "memory": {"source": "none"},
            "regions": [{"index": index, "reported": size} for index, size in bars.items()]}


def gh200_regions(address: str = "0009:01:00.0") -> dict[str, Any]:
    return regions(address, {0: 16 * MIB, 1: 0, 2: GIB, 3: 0, 4: 128 * GIB, 5: 0, 6: 0, 7: 4096})


def vm(**changes: Any) -> dict[str, Any]:
    return {"name": "gpu-vm", "vcpus": 64, "memory": "256GiB", "gpus": 1, **changes}


Case = dict[str, Any]

# Each name is a golden file. Together they walk every branch of the template.
CASES: dict[str, Callable[[], Case]] = {
    "gh200-compat": lambda: {
        "vm": vm(hugepages="512M", disks=[{"path": "/var/lib/libvirt/images/gpu-vm.img"}],
                 networks=[{"network": "default"}]),
        "host": grace_host(), "gpus": [gh200()], "regions": [gh200_regions()]},
    "gh200-compat-demo": lambda: {
        "vm": vm(name="demo", vcpus=1, memory="512MiB", serial_log="/var/log/demo.log",
                 kernel={"path": "/boot/vmlinuz", "initrd": "/usr/share/tiny.cpio.gz", "cmdline": "console=ttyAMA0"}),
        "host": grace_host(), "gpus": [gh200()],
        "regions": [regions("0009:01:00.0", {0: 16 * MIB, 2: GIB, 4: 2 * GIB})]},
    "gh200-compat-plain": lambda: {
        "vm": vm(pinning="none", generic_initiators="none", type="qemu"),
        "host": grace_host(), "gpus": [gh200()], "regions": []},
    "gb200-2gpu-compat": lambda: {
        "vm": vm(gpus=["0008:06:00.0", "0018:06:00.0"], disks=[{"path": "/dev/vg/gpu", "target": "vdb"}],
                 networks=[{"bridge": "br0", "mac": "52:54:00:12:34:56"}]),
        "host": grace_host(2, 2), "gpus": blackwell_gpus("2941", 4), "regions": []},
    "gb200-4gpu-no-accel": lambda: {
        "vm": vm(gpus=4, vcpus=128, memory="512GiB"),
        "host": no_accel_host(2, 2), "gpus": blackwell_gpus("2941", 4), "regions": []},
    "gh200-native": lambda: {
        "vm": vm(hugepages="512M", disks=[{"path": "/img/a.qcow2", "format": "qcow2"}]),
        "host": native_host(), "gpus": [gh200()], "regions": [gh200_regions()]},
    "gb300-4gpu-native": lambda: {
        "vm": vm(gpus=4, vcpus=128, memory="512GiB", autostart=True),
        "host": native_host(2, 2), "gpus": blackwell_gpus("31c2", 4), "regions": []},
    "gh200-native-cmdqv": lambda: {
        "vm": vm(hugepages="512M", cmdqv=True),
        "host": native_host(), "gpus": [gh200()], "regions": [gh200_regions()]},
    "gh200-2gpu-compat": lambda: {
        "vm": vm(gpus=2, vcpus=128, memory="512GiB", hugepages="2M"),
        "host": grace_host(2, 1), "gpus": [gh200("0009:01:00.0", 0, 2), gh200("0019:01:00.0", 1, 10)],
        "regions": [gh200_regions(), gh200_regions("0019:01:00.0")]},
    "gb200-1gpu-no-accel-iommufd": lambda: {
        "vm": vm(gpus=["0009:06:00.0"], networks=[{"network": "default"}]),
        "host": no_accel_host(2, 2, iommufd=True), "gpus": blackwell_gpus("2941", 4), "regions": []},
    "gb200-2gpu-native-remote-node": lambda: {
        "vm": vm(gpus=["0008:06:00.0", "0018:06:00.0"], host_nodes=[1]),
        "host": native_host(2, 2), "gpus": blackwell_gpus("2941", 4), "regions": []},
    "gb300-4gpu-compat": lambda: {
        "vm": vm(gpus=4, vcpus=128, memory="512GiB"),
        "host": grace_host(2, 2), "gpus": blackwell_gpus("31c2", 4), "regions": []},
    "x86-2gpu": lambda: {
        "vm": vm(vcpus=32, memory="128GiB", gpus=2, disks=[{"path": "/dev/vg/x86"}]),
        "host": x86_host(), "gpus": [h100("0000:41:00.0", 0), h100("0000:c1:00.0", 1)], "regions": []},
    "x86-8gpu": lambda: {
        "vm": vm(vcpus=48, memory="256GiB", gpus=8, networks=[{"bridge": "br0"}]),
        "host": x86_host(), "gpus": [h100(f"0000:{bus:02x}:00.0", bus // 0x80) for bus in range(0x11, 0xf2, 0x20)],
        "regions": []},
    "x86-1gpu": lambda: {
        "vm": vm(vcpus=16, memory="128GiB", hugepages="1G", disks=[{"path": "/img/x86.img"}],
                 networks=[{"network": "default"}]),
        "host": x86_host(), "gpus": [x86_card()], "regions": []},
    "x86-emulated": lambda: {
        "vm": vm(vcpus=4, memory="4GiB", type="qemu", pinning="none", gpus=["0000:41:00.0"],
                 extra_xml="<vsock model='virtio'><cid auto='yes'/>"
                           "<address type='pci' domain='0x0000' bus='0x00' slot='0x1e' function='0x0'/></vsock>"),
        "host": x86_host(), "gpus": [x86_card()], "regions": []},
}
