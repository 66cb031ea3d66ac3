# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole hosts: two built by hand after published lspci listings of the machines, and what capture-sysfs printed."""

from __future__ import annotations

import base64
import json
import shutil
import struct
from pathlib import Path

from ansible_collections.nvgrace.passthrough.tests.unit._gpu.fake_sysfs import FakeHost

CAPTURED = Path(__file__).with_name("captured")
MIB, GIB = 1 << 20, 1 << 30
_MEM64_PREFETCH = 0x14220C


def resource(*bars: tuple[int, int]) -> str:
    """The sysfs file with (index, size in bytes) of 64-bit prefetchable BARs, one after the other."""
    lines = ["0x0000000000000000 0x0000000000000000 0x0000000000000000"] * 13
    start = 1 << 44
    for index, size in bars:
        lines[index] = f"0x{start:016x} 0x{start + size - 1:016x} 0x{_MEM64_PREFETCH:016x}"
        start += size
    return "\n".join(lines) + "\n"


def srat(processors: int, initiators: list[tuple[int, int]]) -> bytes:
    """A table with ``processors`` domains and then one domain for each (PCI segment, bus) in ``initiators``."""
    table = bytes(48)
    for domain in range(processors):
        table += struct.pack("<BBIIII", 3, 18, domain, domain, 1, 0)
    for number, (segment, bus) in enumerate(initiators):
        table += struct.pack("<BBBBIHBB12xII", 5, 32, 0, 1, processors + number, segment, bus, 0, 1, 0)
    return table


GB200 = ("0008:01:00.0", "0009:01:00.0", "0018:01:00.0", "0019:01:00.0")


def gb200(root: Path) -> FakeHost:
    """GB200 with two Grace and four GPUs: each GPU below a root port of a PCI segment of its own, eight initiator nodes
    each, and network cards and an NVMe drive that stay with the host."""
    host = FakeHost(root)
    for number, address in enumerate(GB200):
        segment = address.split(":", 1)[0]
        host.add_function(f"{segment}:00:00.0", device="22b1", class_code="060400", group=40 + number,
                          driver="pcieport", node=number // 2)
        host.add_function(address, device="2941", group=20 + number, driver="nvidia", node=number // 2,
                          resource=resource((0, 64 * MIB), (2, 256 * GIB), (4, 32 * MIB)))
    for number, segment in enumerate(("0000", "0002", "0010", "0012")):
        host.add_function(f"{segment}:03:00.0", device="1021", vendor="15b3", class_code="020700", group=60 + number,
                          driver="mlx5_core", node=number // 2)
    host.add_function("0004:01:00.0", device="a80a", vendor="144d", class_code="010802", group=70, driver="nvme")
    host.write("/sys/firmware/acpi/tables/SRAT",
               srat(2, [(int(address[:4], 16), 1) for address in GB200 for _node in range(8)]))
    host.write("/sys/devices/system/node/has_generic_initiator", "2-33\n")
    for node in range(34):
        host.write(f"/sys/devices/system/node/node{node}/meminfo",
                   f"Node {node} MemTotal:       {480 << 20 if node < 2 else 0} kB\n")
    return host


HGX = ("0000:18:00.0", "0000:2a:00.0", "0000:3a:00.0", "0000:5d:00.0",
       "0001:9a:00.0", "0001:ab:00.0", "0001:ba:00.0", "0001:db:00.0")
SWITCHES = ("0000:05:00.0", "0000:06:00.0", "0000:07:00.0", "0000:08:00.0")


def hgx_h100(root: Path) -> FakeHost:
    """HGX H100 with eight GPUs in two PCI segments, each below a switch port of its group, four NVSwitches that share a
    group, and network cards. NVIDIA's own driver has the GPUs and the NVSwitches."""
    host = FakeHost(root)
    for number, address in enumerate(HGX):
        segment, bus, _rest = address.split(":")
        host.add_function(f"{segment}:{int(bus, 16) - 1:02x}:00.0", device="c030", vendor="1000", class_code="060400",
                          group=30 + number, driver="pcieport", node=number // 4)
        host.add_function(address, device="2330", group=30 + number, driver="nvidia", node=number // 4,
                          resource=resource((0, 16 * MIB), (2, 128 * GIB), (4, 32 * MIB)))
        host.write(f"/proc/driver/nvidia/gpus/{address}/information", f"Model: \t H100\nDevice Minor: \t {number}\n")
    for address in SWITCHES:
        host.add_function(address, device="22a3", class_code="068000", group=50, driver="nvidia-nvswitch")
    for number in range(4):
        host.add_function(f"0000:{0x60 + number:02x}:00.0", device="1021", vendor="15b3", class_code="020700",
                          group=80 + number, driver="mlx5_core")
    return host


TURING = ("0000:65:00.0", "0000:65:00.1", "0000:65:00.2", "0000:65:00.3")


def turing_card(root: Path) -> FakeHost:
    """A workstation card with all four functions, GPU, audio, USB and USB-C, in one group with the port above it."""
    host = FakeHost(root)
    host.add_function("0000:64:00.0", device="2030", vendor="8086", class_code="060400", group=9, driver="pcieport")
    for address, device, class_code, driver in zip(
            TURING, ("1e07", "10f7", "1ad6", "1ad7"), ("030000", "040300", "0c0330", "0c8000"),
            ("nouveau", "snd_hda_intel", "xhci_hcd", "nvidia-gpu")):
        host.add_function(address, device=device, class_code=class_code, group=9, driver=driver,
                          resource=resource((0, 16 * MIB)))
    return host


def load(root: Path, tree: dict[str, dict[str, str]], kind: type[FakeHost] = FakeHost) -> FakeHost:
    """A host made of what capture-sysfs printed; the fake kernel answers to writes as everywhere here."""
    host = kind(root)
    for directory in ("lib", "sys"):
        shutil.rmtree(root / directory)
    host.write("/sys/bus/pci/drivers_probe")
    for path, entry in tree.items():
        if "link" in entry:
            host.link(path, entry["link"])
        else:
            host.write(path, base64.b64decode(entry["base64"]) if "base64" in entry else entry["text"])
    for driver in host.listdir("/sys/bus/pci/drivers"):
        host.write(f"/sys/bus/pci/drivers/{driver}/bind")
    return host


def captured() -> dict[str, dict[str, dict[str, str]]]:
    """The trees of running hosts, by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(CAPTURED.glob("*.json"))}
