# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""site.yml defines a domain on an emulated host, libvirt there starts it with the GPU, and its guest looks at the GPU.

The domain is a GH200's of the profile compat, type kvm and host-passthrough, small in memory, vCPUs, huge pages and
host nodes only. Accelerated SMMUs need a real one: those domains are compared as command lines (tests/domains).
"""

from __future__ import annotations

import base64
import gzip
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulated import GPU, LAB, ROOT, EmulatedHost, start
from twin import Guest, read_guest

sys.path.insert(0, str(ROOT / "tests" / "lab"))

from nvlab import cpio

NAME = "guest"
CONSOLE = "/var/log/libvirt/qemu/guest-serial.log"
INITRD = "/var/lib/libvirt/images/guest.initrd"
SECONDS = 420
# Where the host writes before the guest starts, by BAR: the begin, the middle and the end of what is memory.
PATTERN = {2: (0, 1 << 29, (1 << 30) - 8), 4: (0, 3 << 28, (3 << 29) - 8)}
# Behind the memory, inside BAR4: the first and the last eight bytes.
HOLE = (3 << 29, (1 << 31) - 8)
_WRITE = """
import sys
sys.path.insert(0, "/root")
from vfio_client import Device
with Device(sys.argv[1]) as device:
    for bar, offset, data in (line.split() for line in sys.stdin):
        assert device.write(int(bar), int(offset), bytes.fromhex(data)) == 8
        assert device.read(int(bar), int(offset), 8) == bytes.fromhex(data)
"""


def pattern(bar: int, offset: int) -> bytes:
    return (0xA5_0000_0000_0000_00 | bar << 48 | offset).to_bytes(8, "little")


def description() -> dict[str, Any]:
    places = [*((bar, offset) for bar, offsets in PATTERN.items() for offset in offsets), *((4, hole) for hole in HOLE)]
    reads = ",".join(f"{bar}:{offset}" for bar, offset in places)
    return {"name": NAME, "vcpus": 1, "memory": "512MiB", "gpus": 1, "hugepages": "2M", "host_nodes": [0],
            "kernel": {"path": "/boot/vmlinuz", "initrd": INITRD,
                       "cmdline": f"console=ttyAMA0 quiet panic=-1 iomem=relaxed guest.read={reads}"},
            "serial_log": CONSOLE}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedHost]:
    yield start(NAME, tmp_path_factory.mktemp("lab"))
    subprocess.run([LAB, "stop", NAME], check=True)


@pytest.fixture(scope="module")
def report(host: EmulatedHost, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What site.yml reports of the host that it has prepared."""
    busybox = base64.b64decode(host.run("base64", "/usr/bin/busybox"))
    members = {"init": cpio.Member((ROOT / "tests/domains/guest-init").read_bytes(), 0o755),
               "bin/busybox": cpio.Member(busybox, 0o755)}
    archive = base64.b64encode(gzip.compress(cpio.archive(members, ("dev", "proc", "sys")))).decode()
    host.script(f"base64 -d > {INITRD} <<'END'\n{archive}\nEND\n")
    return run_site(host, description(), tmp_path_factory.mktemp("report"))


def run_site(host: EmulatedHost, vm: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Runs site.yml for one VM and returns the report of the host."""
    variables = {"nvgrace_vms": [vm], "gpu_host_hugepages": {"size": "2M", "count": 260},
                 "gpu_host_update_initramfs": "never"}
    return host.site(variables, directory)


@pytest.fixture(scope="module")
def guest(host: EmulatedHost, report: dict[str, Any]) -> Guest:
    """What a guest sees that libvirt has started after the host had written into the GPU's memory."""
    assert report["outcome"] == "verified"
    lines = "".join(f"{bar} {offset} {pattern(bar, offset).hex()}\n"
                    for bar, offsets in PATTERN.items() for offset in offsets)
    client = (ROOT / "tests/kmod/vfio_client.py").read_text()
    host.script(f"cat > /root/vfio_client.py <<'END'\n{client}\nEND\ncat > /root/write.py <<'END'\n{_WRITE}\nEND\n"
                f"python3 /root/write.py {GPU} <<'END'\n{lines}END\n")
    begun = time.monotonic()
    host.run("virsh", "--quiet", "start", NAME)
    while time.monotonic() < begun + SECONDS:
        text = host.run(f"cat {CONSOLE} 2>/dev/null; true")
        if "GUEST-DONE" in text:
            print(f"\nthe guest was done {time.monotonic() - begun:.1f} s after its start", flush=True)
            return read_guest(text)
        time.sleep(2)
    raise AssertionError(f"the guest did not finish within {SECONDS} s: {text[-2000:]}")


def gpu_address(guest: Guest) -> str:
    (device,) = (device for device in guest.devices if device.vendor == 0x10DE)
    return device.address


def test_the_domain_is_one_for_kvm(host: EmulatedHost, report: dict[str, Any]) -> None:
    xml = host.run("virsh", "dumpxml", "--inactive", NAME)
    assert "<domain type='kvm'" in xml and "mode='host-passthrough'" in xml and "<hugepages>" in xml
    assert report["domains"][0]["name"] == NAME


def test_bars_have_the_sizes_that_were_verified(guest: Guest, report: dict[str, Any]) -> None:
    (verified,) = report["devices"]
    expected = {region["index"]: region["reported"] for region in verified["regions"]
                if region["name"].startswith("BAR") and region["reported"]}
    (device,) = (device for device in guest.devices if device.vendor == 0x10DE)
    assert {number: size for number, (_start, size) in device.bars.items()} == expected
    assert all(start and start % size == 0 for start, size in device.bars.values())


def test_nodes_and_initiators_belong_to_the_gpu(guest: Guest) -> None:
    assert guest.domains == frozenset(range(9))
    assert guest.initiators == {(node, gpu_address(guest)) for node in range(1, 9)}
    assert guest.distances[0] == (10, *(80,) * 8)


def test_the_guest_reads_what_the_host_has_written(guest: Guest) -> None:
    address = gpu_address(guest)
    for bar, offsets in PATTERN.items():
        for offset in offsets:
            assert guest.reads[address, bar, offset] == pattern(bar, offset), f"BAR{bar} at {offset:#x}"


def test_behind_the_memory_all_bits_are_set(guest: Guest) -> None:
    for offset in HOLE:
        assert guest.reads[gpu_address(guest), 4, offset] == b"\xff" * 8


def test_a_running_domain_that_is_defined_anew_is_told_to_restart(host: EmulatedHost, guest: Guest,
                                                                  tmp_path: Path) -> None:
    """Its GPU stays where it is: site.yml finds it in use and says what the domain will need."""
    smaller = {**description(), "memory": "384MiB"}
    host.run("virsh", "--quiet", "start", "--paused", NAME)
    try:
        report = run_site(host, smaller, tmp_path)
        assert [device["verdict"] for device in report["devices"]] == ["in-use"]
        (domain,) = report["domains"]
        assert (domain["state"], domain["restart_required"]) == ("defined now", True)
        assert "paused" in host.run("virsh", "domstate", NAME)
    finally:
        host.run("virsh", "--quiet", "destroy", NAME)
    (domain,) = run_site(host, smaller, tmp_path)["domains"]
    assert (domain["state"], domain["restart_required"]) == ("defined, unchanged", False)
