# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""gpu_info over made-up hosts: GH200, GB200 with four GPUs, an x86 card with two functions."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu import sysfs
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.holders import vm_name
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.inventory import read_gpus
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.products import family_of, product_of
from ansible_collections.nvgrace.passthrough.tests.unit._gpu.fake_sysfs import (
    VARIANT,
    FakeHost,
    grace_blackwell,
    grace_hopper,
    x86_card,
)

QEMU = b"/usr/bin/qemu-system-aarch64\0-name\0guest=train7,debug-threads=on\0-S\0"


def test_grace_hopper(tmp_path: Path) -> None:
    (gpu,) = read_gpus(grace_hopper(tmp_path), None)
    assert gpu["address"] == "0009:01:00.0"
    assert (gpu["product_key"], gpu["family"], gpu["coherent"]) == ("gh200-120gb", "grace-hopper", True)
    assert gpu["bars"] == [{"index": 0, "size": 16 << 20, "flags": "0x14220c", "prefetchable": True, "bits64": True}]
    assert gpu["best_variant"] == {"module": VARIANT, "driver": VARIANT, "source": "modules.alias"}
    assert gpu["reset_methods"] == ["flr", "bus"]
    assert gpu["state"] == "free"
    assert gpu["driver_override"] is None


def test_grace_blackwell_has_four_in_other_domains(tmp_path: Path) -> None:
    gpus = read_gpus(grace_blackwell(tmp_path), None)
    assert [gpu["address"] for gpu in gpus] == [f"{domain}:01:00.0" for domain in ("0008", "0009", "0018", "0019")]
    assert [gpu["iommu_group"] for gpu in gpus] == [20, 21, 22, 23]
    assert [member["kind"] for member in gpus[0]["group_members"]] == ["bridge", "gpu"]


def test_x86_card_shows_its_group(tmp_path: Path) -> None:
    (gpu,) = read_gpus(x86_card(tmp_path), None)
    assert [(member["address"], member["kind"], member["driver"]) for member in gpu["group_members"]] == [
        ("0000:40:01.0", "bridge", None), ("0000:41:00.0", "gpu", "nouveau"),
        ("0000:41:00.1", "audio", "snd_hda_intel")]
    assert (gpu["product"], gpu["coherent"]) == (None, False)
    assert gpu["best_variant"]["module"] == "vfio_pci"


def test_no_group_yet(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.add_function("0009:01:00.0")
    (gpu,) = read_gpus(host, None)
    assert (gpu["iommu_group"], gpu["group_members"]) == (None, [])


@pytest.mark.parametrize(("speed", "width", "expected"), [
    ("16.0 GT/s PCIe", "8", {"speed": 16.0, "width": 8, "max_speed": 32.0, "max_width": 16}),
    ("2.5 GT/s PCIe", "16", {"speed": 2.5, "width": 16, "max_speed": 32.0, "max_width": 16}),
    ("Unknown", "0", None),
    ("Unknown", "16", None),
    (None, None, None),
])
def test_link(tmp_path: Path, speed: str | None, width: str | None, expected: dict[str, float] | None) -> None:
    host = grace_hopper(tmp_path)
    base = "/sys/bus/pci/devices/0009:01:00.0"
    if speed is not None and width is not None:
        host.write(f"{base}/current_link_speed", speed + "\n")
        host.write(f"{base}/current_link_width", width + "\n")
        host.write(f"{base}/max_link_speed", "32.0 GT/s PCIe\n")
        host.write(f"{base}/max_link_width", "16\n")
    assert read_gpus(host, None)[0]["link"] == expected


def hold_by_qemu(host: FakeHost) -> None:
    host.add_process(4711, "qemu-system-aar", ["/dev/null", "/dev/vfio/11"], QEMU)


def hold_by_nvidia(host: FakeHost) -> None:
    host.write("/proc/driver/nvidia/gpus/0009:01:00.0/information", "Model: \t x\nDevice Minor: \t 3\n")
    host.add_process(80, "nvidia-persiste", ["/dev/nvidia3"])


def hold_by_drm(host: FakeHost) -> None:
    host.write("/sys/bus/pci/devices/0009:01:00.0/drm/renderD129/dev", "226:129")
    host.add_process(81, "Xorg", ["/dev/dri/renderD129"])


def hold_by_cdev(host: FakeHost) -> None:
    host.write("/sys/bus/pci/devices/0009:01:00.0/vfio-dev/vfio5/dev", "1:1")
    host.add_process(82, "cloud-hyperviso", ["/dev/vfio/devices/vfio5"])


def hold_by_framebuffer(host: FakeHost) -> None:
    host.write("/sys/bus/pci/devices/0009:01:00.0/graphics/fb0/dev", "29:0")


def hold_by_firmware_console(host: FakeHost) -> None:
    host.write("/proc/iomem", "10000000-1fffffff : PCI Bus\n  11000000-112fffff : efifb\n")


def hold_by_memory(host: FakeHost) -> None:
    srat = bytes(48) + struct.pack("<BBIIII", 3, 18, 0, 0, 1, 0) + struct.pack("<BBBBIHBB12xII", 5, 32, 0, 1, 1, 9, 1,
                                                                               0, 1, 0)
    host.write("/sys/firmware/acpi/tables/SRAT", srat)
    host.write("/sys/devices/system/node/has_generic_initiator", "1")
    host.write("/sys/devices/system/node/node1/meminfo", "Node 1 MemTotal:  98304 kB\n")


def hold_by_interface(host: FakeHost) -> None:
    host.write("/sys/bus/pci/devices/0009:01:00.0/net/enp1s0/operstate", "up\n")
    host.write("/sys/bus/pci/devices/0009:01:00.0/net/enp2s0/operstate", "down\n")


def disk(host: FakeHost, name: str, address: str = "0009:01:00.0") -> None:
    host.write(f"/sys/devices/pci0009:00/{address}/nvme/nvme0/{name}/size", "8\n")
    host.link(f"/sys/class/block/{name}", f"../../devices/pci0009:00/{address}/nvme/nvme0/{name}")


def hold_by_mount(host: FakeHost) -> None:
    disk(host, "nvme0n1")
    disk(host, "nvme0n1p1")
    host.write("/proc/mounts", "proc /proc proc rw 0 0\n/dev/nvme0n1p1 / ext4 rw 0 0\n")


def hold_by_swap(host: FakeHost) -> None:
    disk(host, "nvme0n1p2")
    host.write("/proc/swaps", "Filename Type Size Used Priority\n/dev/nvme0n1p2 partition 8 0 -2\n")


def hold_by_lvm(host: FakeHost) -> None:
    disk(host, "nvme0n1p3")
    host.write("/sys/class/block/nvme0n1p3/holders/dm-0/size", "8\n")


@pytest.mark.parametrize(("hold", "sentence"), [
    (hold_by_interface, "its network interface enp1s0 is up"),
    (hold_by_mount, "its disk nvme0n1p1 is in use"),
    (hold_by_swap, "its disk nvme0n1p2 is in use"),
    (hold_by_lvm, "its disk nvme0n1p3 is in use"),
    (hold_by_qemu, "virtual machine train7 (pid 4711) holds /dev/vfio/11"),
    (hold_by_nvidia, "nvidia-persiste (pid 80) holds /dev/nvidia3"),
    (hold_by_drm, "Xorg (pid 81) holds /dev/dri/renderD129"),
    (hold_by_cdev, "cloud-hyperviso (pid 82) holds /dev/vfio/devices/vfio5"),
    (hold_by_framebuffer, "the console framebuffer is on it"),
    (hold_by_firmware_console, "the console framebuffer is on it"),
    (hold_by_memory, "its memory is online as NUMA node 1"),
])
def test_who_holds_it(tmp_path: Path, hold: object, sentence: str) -> None:
    host = grace_hopper(tmp_path)
    hold(host)  # type: ignore[operator]
    (gpu,) = read_gpus(host, None)
    assert gpu["in_use_because"] == [sentence]
    assert gpu["state"] == "in-use"


def test_other_holders_do_not_count(tmp_path: Path) -> None:
    host = grace_hopper(tmp_path)
    host.add_process(90, "qemu-system-aar", ["/dev/vfio/12", "/dev/nvidia0", "/dev/dri/card0", "/dev/vfio/vfio"])
    host.write("/proc/iomem", "80000000-802fffff : efifb\n")
    host.write("/proc/91/comm", "a process without open files")
    disk(host, "nvme1n1", "0009:02:00.0")
    disk(host, "nvme0n1")
    host.write("/proc/mounts", "/dev/nvme1n1 / ext4 rw 0 0\n")
    assert read_gpus(host, None)[0]["state"] == "free"


@pytest.mark.parametrize(("cmdline", "name"), [
    (QEMU, "train7"),
    (b"qemu-system-x86_64\0-name\0plain\0", "plain"),
    (b"qemu-system-x86_64\0-m\0001G\0", None),
    (b"qemu-system-x86_64\0-name", None),
    (b"cat\0-name\0guest=x\0", None),
    (b"", None),
])
def test_vm_name(cmdline: bytes, name: str | None) -> None:
    assert vm_name(cmdline) == name


@pytest.mark.parametrize(("device", "machine", "family"), [
    ("2342", "aarch64", "grace-hopper"), ("31c2", "aarch64", "grace-blackwell"), ("2684", "x86_64", "x86"),
    ("2684", "aarch64", "unknown"),
])
def test_family(device: str, machine: str, family: str) -> None:
    assert family_of(product_of("10de", device), machine) == family


def dvsec_config(*capabilities: tuple[int, int, int, int]) -> bytes:
    """4096 bytes with extended capabilities (offset, id, header1, header2), each pointing to the next."""
    config = bytearray(4096)
    for number, (offset, identifier, header1, header2) in enumerate(capabilities):
        following = capabilities[number + 1][0] if number + 1 < len(capabilities) else 0
        struct.pack_into("<III", config, offset, identifier | 1 << 16 | following << 20, header1, header2)
    return bytes(config)


@pytest.mark.parametrize(("config", "expected"), [
    (dvsec_config((0x100, 3, 0, 0), (0x140, 0x23, 0x10DE, 3)), 0x140),
    (dvsec_config((0x100, 0x23, 0x10DE, 2), (0x200, 0x23, 0x1E98, 3)), None),
    (dvsec_config((0x100, 3, 0, 0), (0x140, 3, 0, 0), (0x100, 3, 0, 0)), None),
    (b"\xff" * 4096, None),
    (bytes(4096), None),
    (bytes(256), None),
    (b"", None),
])
def test_dvsec(config: bytes, expected: int | None) -> None:
    assert sysfs.find_dvsec(config, 0x10DE, 3) == expected
