# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""region_verify end to end, on a made-up host with a model of VFIO."""

from __future__ import annotations

import errno
import json
import re
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu import child
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.sysfs import read_function
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio import uapi
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.device import open_device
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.observe import observe
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.probe import probe_region
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.verify import (
    Verifier,
    VerifyOptions,
    utc_now,
)
from ansible_collections.nvgrace.passthrough.tests.unit._gpu.fake_sysfs import (
    RESOURCE_GH,
    VARIANT,
    FakeHost,
    grace_hopper,
)
from ansible_collections.nvgrace.passthrough.tests.unit._vfio.fake_kernel import (
    CONTAINER,
    DEVICE,
    GIB,
    GROUP,
    MIB,
    FakeKernel,
    Region,
    blackwell_regions,
    hopper_regions,
    plain_regions,
)

GPU = "0009:01:00.0"
RECORD = f"/var/lib/nvgrace-passthrough/{GPU}.json"
LAYOUT = f"/sys/module/{VARIANT}/parameters/layout"
SCHEMA = json.loads((Path(__file__).parents[3] / "docs" / "schemas" / "verification.schema.json").read_text())
NOW = "2026-11-23T08:00:00Z"


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    made = grace_hopper(tmp_path)
    made.add_function(GPU, group=11, driver=VARIANT, resource=RESOURCE_GH, config=bytes(4096))
    made.write(LAYOUT, "mainline\n")
    made.write(f"/sys/module/{VARIANT}/taint", "OE\n")
    return made


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    return FakeKernel(tmp_path, hopper_regions())


def verify(host: FakeHost, kernel: FakeKernel, memory: int | None = 2560 * MIB, machine: str = "aarch64",
           log: Callable[[str], None] = lambda _line: None, **options: Any) -> dict[str, Any]:
    """A run, whose result always has the published form."""
    gpus = [{"address": GPU, "expected_memory": memory}]
    values = {"timeout": 20, "gpus": gpus, **options}
    try:
        result = Verifier(host, VerifyOptions(**values), kernel, lambda: NOW, log, machine).run()
    except PassthroughError as error:
        if "devices" in error.details:
            jsonschema.validate(error.details, SCHEMA)
        raise
    jsonschema.validate(result, SCHEMA)
    return result


def failure(host: FakeHost, kernel: FakeKernel, **options: Any) -> dict[str, Any]:
    """The only device of a run that must fail."""
    with pytest.raises(PassthroughError, match=f"Verification failed. {GPU}: ") as caught:
        verify(host, kernel, **options)
    (device,) = caught.value.details["devices"]
    assert device["verdict"] == "fail"
    assert isinstance(device, dict)
    return device


@pytest.mark.parametrize("probe", ["none", "read", "full"])
def test_ok(host: FakeHost, kernel: FakeKernel, probe: str) -> None:
    result = verify(host, kernel, probe=probe)
    (device,) = result["devices"]
    assert (device["verdict"], device["reasons"], device["layout"], device["api"]) == ("ok", [], "mainline", "group")
    assert (device["driver"], device["srcversion"], device["verified_at"]) == (VARIANT, "SRCNVGR", NOW)
    assert [(region["index"], region["reported"], region["actual"]) for region in device["regions"]
            if region["reported"]] == [
                (0, 16 * MIB, 16 * MIB), (2, GIB, GIB), (4, 2 * GIB, 1536 * MIB), (7, 4096, 4096)]
    assert (result["changed"], kernel.openings()) == (True, [GPU])
    assert result["diff"]["before"] != result["diff"]["after"]


def test_a_valid_record_saves_the_reset(host: FakeHost, kernel: FakeKernel) -> None:
    first = verify(host, kernel)
    again = verify(host, kernel)
    assert kernel.openings() == [GPU]
    assert (again["changed"], again["actions"]) == (False, [])
    assert again["devices"][0] == {**first["devices"][0], "from_record": True}
    assert verify(host, kernel, check_mode=True)["changed"] is False
    assert again["diff"]["before"] == again["diff"]["after"]


def test_a_valid_record_needs_nothing_that_opens_a_device(host: FakeHost, kernel: FakeKernel,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a device nor the modules for it, which would be sent and compiled on each host."""
    package = uapi.__name__.rpartition(".")[0]
    verify(host, kernel)
    for name in ("look", "device", "observe", "probe", "judge", "predict", "layout"):
        monkeypatch.setitem(sys.modules, f"{package}.{name}", None)
    assert verify(host, kernel)["devices"][0]["from_record"] is True
    with pytest.raises(ImportError):
        verify(host, kernel, force=True)


def reboot(host: FakeHost) -> dict[str, Any]:
    host.write("/proc/sys/kernel/random/boot_id", "other\n")
    return {}


def rebuild(host: FakeHost) -> dict[str, Any]:
    host.write(f"/sys/module/{VARIANT}/srcversion", "OTHER\n")
    return {}


def other_layout(host: FakeHost) -> dict[str, Any]:
    """The module was loaded anew with another parameter."""
    host.write(LAYOUT, "bar2\n")
    return {}


def regroup(host: FakeHost) -> dict[str, Any]:
    host.set_group(GPU, 12)
    return {}


@pytest.mark.parametrize("change", [reboot, rebuild, regroup, other_layout, lambda _host: {"force": True},
                                    lambda _host: {"api": "group"},
                                    lambda _host: {"probe": "full"}, lambda _host: {"layout": "mainline"}])
def test_what_makes_a_record_invalid(host: FakeHost, kernel: FakeKernel, change: Any) -> None:
    verify(host, kernel)
    result = verify(host, kernel, **change(host))
    assert (result["changed"], kernel.openings()) == (True, [GPU, GPU])


def test_a_deeper_look_serves_a_shallower_one(host: FakeHost, kernel: FakeKernel) -> None:
    verify(host, kernel, probe="full")
    assert verify(host, kernel, probe="none")["changed"] is False


@pytest.mark.parametrize("damaged", [{}, {"fingerprint": {}}, {"fingerprint": None, "entry": {}}, 5])
def test_a_damaged_record_is_no_record(host: FakeHost, kernel: FakeKernel, damaged: Any) -> None:
    host.write(RECORD, json.dumps({"verification": damaged, "binding": {"kept": True}}))
    assert verify(host, kernel)["changed"] is True
    assert json.loads(host.read(RECORD))["binding"] == {"kept": True}


def test_check_mode_opens_nothing_and_predicts(host: FakeHost, kernel: FakeKernel) -> None:
    result = verify(host, kernel, check_mode=True)
    (device,) = result["devices"]
    assert (device["verdict"], device["reasons"]) == ("skipped", ["skipped: predicted"])
    assert [(region["index"], region["reported"]) for region in device["regions"]] == [
        (0, 16 * MIB), (2, GIB), (4, 2 * GIB)]
    assert device["memory"] == {"expected": 2560 * MIB, "seen": None, "source": "expected_memory"}
    assert (result["changed"], kernel.openings(), host.has(RECORD)) == (True, [], False)


def test_a_device_in_a_vm_is_never_opened(host: FakeHost, kernel: FakeKernel) -> None:
    verify(host, kernel)
    host.add_process(7, "qemu-system-aar", ["/dev/vfio/11"], b"qemu-system-aarch64\0-name\0guest=train7\0-S\0")
    result = verify(host, kernel, force=True)
    (device,) = result["devices"]
    assert (device["verdict"], device["from_record"], result["changed"]) == ("in-use", True, False)
    assert device["reasons"] == [f"in use, verified at {NOW}: ok",
                                 "virtual machine train7 (pid 7) holds /dev/vfio/11"]
    assert device["regions"][2]["reported"] == GIB
    assert kernel.openings() == [GPU]


def test_a_device_in_use_that_was_never_verified(host: FakeHost, kernel: FakeKernel) -> None:
    host.add_process(7, "spdk", ["/dev/vfio/11"])
    (device,) = verify(host, kernel)["devices"]
    assert (device["verdict"], device["from_record"]) == ("in-use", False)
    assert device["reasons"][0] == "in use, not verified since it was bound or since the host started"
    assert kernel.openings() == []


def test_who_comes_between_the_first_look_and_the_opening_is_seen(host: FakeHost, kernel: FakeKernel) -> None:
    """GPUs before this one may have taken minutes."""
    second = "0019:01:00.0"
    host.add_function(second, group=12, driver=VARIANT, resource=RESOURCE_GH, config=bytes(4096))
    opened = kernel.open

    def open_and_take_the_other(path: str) -> int:
        host.add_process(7, "spdk", ["/dev/vfio/12"])
        return opened(path)
    kernel.open = open_and_take_the_other  # type: ignore[method-assign]  # somebody starts a VM meanwhile
    gpus = [{"address": address, "expected_memory": 2560 * MIB} for address in (GPU, second)]
    first, other = verify(host, kernel, gpus=gpus)["devices"]
    assert (first["verdict"], other["verdict"]) == ("ok", "in-use")
    assert other["reasons"][1] == "spdk (pid 7) holds /dev/vfio/12"


def test_a_busy_group_is_in_use_too(host: FakeHost, kernel: FakeKernel) -> None:
    kernel.fail["/dev/vfio/11"] = errno.EBUSY
    result = verify(host, kernel)
    assert (result["devices"][0]["verdict"], result["changed"]) == ("in-use", False)
    assert result["devices"][0]["reasons"][1] == f"{GPU} (IOMMU group 11) is open in another process."


@pytest.mark.parametrize(("fail", "reason"), [
    ({"/dev/vfio/vfio": errno.ENOENT}, "could not open /dev/vfio/vfio: No such file"),
    ({"/dev/vfio/11": errno.ENOENT}, "nothing in the group is bound to a VFIO driver"),
    ({uapi.GROUP_SET_CONTAINER: errno.EPERM}, "another driver owns the DMA of the group"),
    ({uapi.SET_IOMMU: errno.ENODEV}, "load vfio_iommu_type1"),
    ({uapi.SET_IOMMU: errno.EPERM}, "this collection never sets allow_unsafe_interrupts"),
    ({uapi.GROUP_GET_DEVICE_FD: errno.EBUSY}, "kernels 7.0 to 7.2"),
    ({uapi.GROUP_GET_DEVICE_FD: errno.ETIME}, "did not become ready"),
    ({uapi.GROUP_GET_DEVICE_FD: errno.EIO}, "see the kernel log"),
    ({uapi.GET_API_VERSION: errno.ENOTTY}, "could not question /dev/vfio/vfio"),
    ({uapi.GROUP_GET_STATUS: errno.EIO}, "could not question the group"),
    ({uapi.DEVICE_GET_INFO: errno.ENODEV}, "could not question the device: No such device"),
    ({uapi.DEVICE_GET_REGION_INFO: errno.ETIME}, "did not become ready"),
])
def test_what_an_error_number_means(host: FakeHost, kernel: FakeKernel, fail: Any, reason: str) -> None:
    verify(host, kernel)
    kernel.fail = fail
    assert reason in failure(host, kernel, force=True)["reasons"][0]
    assert not host.has(RECORD)


def test_a_group_that_is_not_viable(host: FakeHost, kernel: FakeKernel) -> None:
    kernel.viable = False
    assert "is not viable" in failure(host, kernel)["reasons"][0]


def test_no_type_1_backend(host: FakeHost, kernel: FakeKernel) -> None:
    kernel.api_version = 1
    assert "vfio_iommu_type1" in failure(host, kernel)["reasons"][0]


def test_no_pci_device(host: FakeHost, kernel: FakeKernel) -> None:
    kernel.device_flags = 0
    assert "no PCI device" in failure(host, kernel)["reasons"][0]


def test_a_host_driver_is_told(tmp_path: Path, kernel: FakeKernel) -> None:
    host = FakeHost(tmp_path)
    host.add_function(GPU, group=11, driver="nouveau")
    assert failure(host, kernel)["reasons"] == [
        "It is bound to nouveau and not to a VFIO driver: run gpu_driver first."]
    assert kernel.openings() == []


def wait_long(_index: int, _length: int, _position: int) -> Any:
    time.sleep(0.5)
    raise OSError(errno.EINVAL, "x")


def test_a_long_wait_is_told_in_the_journal(host: FakeHost, kernel: FakeKernel,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "WAITING_SECONDS", 0.2)
    kernel.mapping = wait_long
    lines: list[str] = []
    with pytest.raises(PassthroughError):
        verify(host, kernel, log=lines.append, timeout=None)
    assert lines[0] == f"{GPU}: opening, which resets it; this may take 60 seconds"
    assert re.fullmatch(GPU + r": not verified after \d+ of at most 60 seconds; the GPU may not be ready yet", lines[1])
    assert len(lines) > 3


def test_a_gpu_that_needs_minutes_gets_them(host: FakeHost, kernel: FakeKernel) -> None:
    config = bytearray(4096)
    struct.pack_into("<III", config, 0x100, 0x23 | 1 << 16, 0x1E98, 0)
    struct.pack_into("<I", config, 0x11C, 1 | 4 << 13)
    host.write(f"/sys/bus/pci/devices/{GPU}/config", bytes(config))
    lines: list[str] = []
    verify(host, kernel, log=lines.append, timeout=None)
    assert lines == [f"{GPU}: opening, which resets it; this may take 287 seconds"]


def test_the_kernels_own_driver(host: FakeHost, kernel: FakeKernel) -> None:
    """It has no parameter, cuts reads over the end of resmem, and shows one BAR in a wide config read."""
    host.remove(LAYOUT)
    kernel.one_bar = True
    kernel.short_reads = True
    (device,) = verify(host, kernel, probe="full")["devices"]
    assert (device["verdict"], device["implementation"], device["layout"]) == ("ok", "kernel", "mainline")
    assert any("config read that spans several" in note for note in device["notes"])
    assert any("cuts a read" in note for note in device["notes"])


def test_plain_vfio_pci_is_never_written_to(host: FakeHost, kernel: FakeKernel) -> None:
    """Whatever sparse areas it shows: they are no memory."""
    host.load("vfio_pci")
    host.link(f"/sys/bus/pci/devices/{GPU}/driver", "../../drivers/vfio-pci")
    kernel.regions = {0: Region(16 * MIB), 4: Region(2 * GIB, 1536 * MIB), 7: Region(4096, flags=3)}
    kernel.mapping = die
    host.write(f"/sys/bus/pci/devices/{GPU}/resource",
               "0x11000000 0x11ffffff 0x14220c\n0 0 0\n0 0 0\n0 0 0\n0x100000000 0x17fffffff 0x14220c\n")
    modalias = f"/sys/bus/pci/devices/{GPU}/modalias"
    host.write(modalias, host.read(modalias).replace("d00002342", "d00002331"))
    host.write(f"/sys/bus/pci/devices/{GPU}/device", "0x2331\n")
    (device,) = verify(host, kernel, probe="full", memory=None, machine="x86_64")["devices"]
    assert (device["verdict"], device["layout"], device["implementation"]) == ("ok", "plain", "vfio-pci")
    assert verify(host, kernel, probe="full", memory=None, force=True)["devices"][0]["verdict"] == "unchecked"


def test_fallback_is_told_in_the_words_of_the_kernel(host: FakeHost, kernel: FakeKernel) -> None:
    kernel.regions = plain_regions()
    said = "firmware property nvidia,gpu-mem-size is 0 (C2C link down): no coherent memory, acting as plain vfio-pci"
    host.write("/dev/kmsg", f"4,7,1,-;nvgrace_gpu_vfio_pci {GPU}: {said}\n")
    assert f"shows no coherent memory (the kernel log says: {said})." in failure(host, kernel)["reasons"][0]


def test_fallback_is_told(host: FakeHost, kernel: FakeKernel) -> None:
    kernel.regions = plain_regions()
    host.write("/sys/firmware/acpi/tables/SSDT1", b"nothing here")
    device = failure(host, kernel)
    assert device["layout"] == "fallback"
    assert "the firmware tables hold no nvidia,gpu-mem properties" in device["reasons"][0]


@pytest.mark.parametrize(("fault", "reason"), [
    ({"hole": 0}, "the hole at 0x60000000 reads 0000000000000000"),
    ({"short_reads": True}, "a read of 16 bytes across the end of the memory gave 8 bytes"),
    ({"keeps_hole_writes": True}, "a write of 8 bytes into the hole returned 7"),
    ({"reads_past_end": True}, "a read at the end of the region gave 8 bytes and no error"),
    ({"maps_the_hole": True}, "the hole at 0x60000000 can be mapped"),
    ({"one_bar": True}, "CONFIG: one read over all BAR registers lacks some"),
    ({"config_reads": 0x12}, "CONFIG: a read of 4 bytes of config space gave 2"),
])
def test_full_probe_finds(host: FakeHost, kernel: FakeKernel, fault: dict[str, Any], reason: str) -> None:
    for name, value in fault.items():
        setattr(kernel, name, value)
    assert any(reason in text for text in failure(host, kernel, probe="full")["reasons"])


class OtherBytes:
    """A mapping that shows other bytes than read(2)."""

    def __getitem__(self, _place: slice) -> bytes:
        return b"otherone"

    def __setitem__(self, _place: slice, _data: bytes) -> None:
        """Writes are lost."""

    def close(self) -> None:
        """Nothing to close."""


def test_a_mapping_of_something_else_is_found(host: FakeHost, kernel: FakeKernel) -> None:
    kernel.mapping = lambda _index, _length, _position: OtherBytes()
    reasons = failure(host, kernel, probe="full")["reasons"]
    assert any("the mapping shows 6f746865726f6e65 and read(2) 0000000000000000" in text for text in reasons)
    assert any("written through the mapping at 0x0 reads back as 0000000000000000" in text for text in reasons)


def die(_index: int, _length: int, _position: int) -> Any:
    import faulthandler
    import os
    import signal

    faulthandler.disable()
    os.kill(os.getpid(), signal.SIGBUS)


def test_a_bus_error_ends_the_check_only(host: FakeHost, kernel: FakeKernel) -> None:
    kernel.mapping = die
    reasons = failure(host, kernel)["reasons"]
    assert "BAR2: The check 'mapping' of BAR2 was ended by SIGBUS. The memory did not answer." in reasons


def refuse_mapping(_index: int, _length: int, _position: int) -> Any:
    raise OSError(errno.EINVAL, "x")


def test_a_refused_mapping_is_told(host: FakeHost, kernel: FakeKernel) -> None:
    kernel.mapping = refuse_mapping
    assert "BAR2: The check 'mapping' of BAR2 failed: Invalid argument." in failure(host, kernel)["reasons"]


def test_a_device_that_never_answers_is_given_up(host: FakeHost, kernel: FakeKernel) -> None:
    kernel.mapping = lambda _index, _length, _position: time.sleep(30)
    assert "did not end within 1 seconds" in failure(host, kernel, timeout=1)["reasons"][0]


class DiesAfterWriting:
    """A mapping that takes a write and kills at the next look, as memory that fails between the two."""

    def __init__(self, memory: Path, place: int) -> None:
        self.memory, self.place = memory, place

    def __getitem__(self, where: slice) -> bytes:
        with open(self.memory, "rb") as memory:
            memory.seek(self.place + where.start)
            return memory.read(where.stop - where.start)

    def __setitem__(self, where: slice, data: bytes) -> None:
        with open(self.memory, "r+b") as memory:
            memory.seek(self.place + where.start)
            memory.write(data)
        die(0, 0, 0)

    def close(self) -> None:
        """Nothing to close."""


def test_what_a_dying_check_wrote_is_restored(host: FakeHost, kernel: FakeKernel) -> None:
    kernel.pwrite(0, b"precious", 4 << 40)
    kernel.mapping = lambda index, _length, place: DiesAfterWriting(kernel.memory, kernel.regions[index].base + place)
    reasons = failure(host, kernel, probe="full")["reasons"]
    assert "BAR4: The check 'boundary write' of BAR4 was ended by SIGBUS. The memory did not answer." in reasons
    assert kernel.pread(0, 8, 4 << 40) == b"precious"


def test_memory_that_cannot_be_restored_is_told(host: FakeHost, kernel: FakeKernel,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.mapping = lambda index, _length, place: DiesAfterWriting(kernel.memory, kernel.regions[index].base + place)
    monkeypatch.setattr(FakeKernel, "pwrite", lambda _self, _handle, data, _offset: len(data))
    reasons = failure(host, kernel, probe="full")["reasons"]
    assert any("The bytes 0000000000000000 at 0x0 could not be restored." in text for text in reasons)


def test_memory_that_cannot_be_read_is_told(host: FakeHost, kernel: FakeKernel,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: FakeKernel, _handle: int, count: int, offset: int) -> bytes:
        if offset >> 40 == uapi.CONFIG_REGION:
            return self._config(offset & 0xFFF, count)
        raise OSError(errno.EIO, "x")

    monkeypatch.setattr(FakeKernel, "pread", refuse)
    reasons = failure(host, kernel, probe="full")["reasons"]
    assert any("the ends of the memory could not be read or restored: Input/output error" in text for text in reasons)
    assert any("The check 'hole' of BAR4 failed: Input/output error." in text for text in reasons)


def test_bars_are_sized_and_restored(host: FakeHost, kernel: FakeKernel) -> None:
    before = kernel.pread(0, 24, (7 << 40) + 0x10)
    (device,) = verify(host, kernel, probe="full")["devices"]
    bars = {item["index"]: item["evidence"] for item in device["regions"]}
    assert "tried in a child process: its BAR registers say 2147483648 bytes" in bars[4]
    assert "tried in a child process: its BAR registers say 16777216 bytes" in bars[0]
    assert kernel.pread(0, 24, (7 << 40) + 0x10) == before


@pytest.mark.parametrize("register", [0xC, 0x4, 0x0, 0x1])
def test_bars_of_every_type_are_sized(host: FakeHost, kernel: FakeKernel, register: int) -> None:
    kernel.regions[0] = Region(16 * MIB, register=register)
    kernel.lie = put("=Q", 16, 32 * MIB, region=0)
    reasons = failure(host, kernel, probe="full")["reasons"]
    assert any("its BAR registers say 16777216 bytes and region info 33554432" in text for text in reasons)


def test_one_check_that_hangs_is_one_finding(host: FakeHost, kernel: FakeKernel) -> None:
    """As many seconds as the whole verification may take are more than one check gets here."""
    kernel.mapping = lambda _index, _length, _position: time.sleep(30)
    with open_device(read_function(host, GPU), "group", kernel) as device:
        (region,) = [item for item in observe(device, "none", 1).regions if item.index == 4]
        findings = probe_region(device, region, False, 0.3)
    assert [(item.check, item.ok) for item in findings] == [("mapping", False), ("hole", True)]
    assert "The check 'mapping' of BAR4 did not end within 0 seconds" in findings[0].text


def test_full_probe_leaves_the_memory_as_it_was(host: FakeHost, kernel: FakeKernel) -> None:
    kernel.pwrite(0, b"precious", 4 << 40)
    kernel.pwrite(0, b"treasure", (4 << 40) + 1536 * MIB - 8)
    verify(host, kernel, probe="full")
    assert kernel.pread(0, 8, 4 << 40) == b"precious"
    assert kernel.pread(0, 8, (4 << 40) + 1536 * MIB - 8) == b"treasure"


def test_memory_that_is_no_multiple_of_a_page(host: FakeHost, kernel: FakeKernel) -> None:
    kernel.regions = {**blackwell_regions(), 4: Region(2 * GIB, 1280 * MIB + 8192)}
    config = bytearray(4096)
    config[0x100:0x10C] = bytes.fromhex("23000100de10000003000100")
    host.add_function(GPU, group=11, driver=VARIANT, config=bytes(config),
                      resource="0x11000000 0x11ffffff 0x14220c\n0 0 0\n0x20000000 0x21ffffff 0x14220c\n")
    (device,) = verify(host, kernel, memory=1280 * MIB + 8192 + 100, probe="full")["devices"]
    assert (device["verdict"], device["reasons"]) == ("ok", [])


def put(form: str, offset: int, *values: int, region: int = 4) -> Callable[[int, bytearray], None]:
    """A lie: values that replace a part of the whole answer about a region."""
    def lie(index: int, buffer: bytearray) -> None:
        if index == region and len(buffer) >= offset + struct.calcsize(form):
            struct.pack_into(form, buffer, offset, *values)

    return lie


def growing(index: int, buffer: bytearray) -> None:
    if index == 4:
        struct.pack_into("=I", buffer, 0, len(buffer) + 16)


# argsz 0, flags 4, index 8, cap_offset 12, size 16, offset 24; the capability 32, its areas' count 40, its area 48
LIES = [
    ("argsz that grows", growing, "asks for more room for region 4 each time, 80 bytes at last"),
    ("argsz of gigabytes", put("=I", 0, 0xFFFFFFF0), "asks for 4294967280 bytes of region info"),
    ("argsz below the structure", put("=I", 0, 8), "its answer about region 4 has 8 bytes"),
    ("another region", put("=I", 8, 5), "asked about region 4, the kernel answers about region 5"),
    ("capabilities that are not there", put("=I", 12, 0), "said to have capabilities, and the answer has none"),
    ("chain behind the answer", put("=I", 12, 64), "points outside the answer, to 64"),
    ("chain into the structure", put("=I", 12, 16), "points back, to 16"),
    ("chain not aligned", put("=I", 12, 34), "points to 34, which is not aligned"),
    ("next is itself", put("=I", 36, 32), "points back, to 32"),
    ("next is before", put("=I", 36, 8), "points back, to 8"),
    ("next outside", put("=I", 36, 1 << 20), "points outside the answer, to 1048576"),
    ("unknown version", put("=H", 34, 9), "unknown version 9"),
    ("more areas than fit", put("=I", 40, 2), "claims 2 areas, more than fit"),
    ("area larger than the region", put("=Q", 56, 2 * GIB + 1), "has an area that ends at 0x80000001"),
    ("area behind the region", put("=Q", 48, 1 << 62), "has an area that ends at"),
    ("empty area", put("=Q", 56, 0), "has an area without a byte"),
    ("size beyond any file", put("=Q", 16, 1 << 63), "where no file has any"),
    ("offset beyond any file", put("=Q", 24, (1 << 64) - 4096), "where no file has any"),
]


@pytest.mark.parametrize(("lie", "reason"), [row[1:] for row in LIES], ids=[row[0] for row in LIES])
def test_an_answer_that_cannot_be_true_is_a_verdict(host: FakeHost, kernel: FakeKernel, lie: Any, reason: str) -> None:
    kernel.lie = lie
    device = failure(host, kernel, probe="full")
    assert device["reasons"][0].startswith("The kernel's answer makes no sense: BAR4: ")
    assert reason in device["reasons"][0]
    assert device["layout"] is None


@pytest.mark.parametrize(("lie", "reason"), [
    # a capability that nobody knows: the region has no areas then
    (put("=H", 32, 77), "BAR4: reports 2147483648 bytes and the function's own BAR has 0"),
    (put("=I", 40, 0), "BAR4: reports 2147483648 bytes and the function's own BAR has 0"),
    (put("=Q", 48, 4096), "BAR4: reports 2147483648 bytes and the function's own BAR has 0"),
    (put("=Q", 56, 100), "its area has 100 bytes, which are no whole pages of 4096"),
    (put("=Q", 56, 4097), "its area has 4097 bytes, which are no whole pages"),
    (put("=Q", 24, 2 << 40), "BAR4 lies over BAR2 in the device file"),
    (put("=Q", 16, 4 * GIB), "BAR4: reports 4294967296 bytes and usemem must report 2147483648"),
    (put("=I", 4, 0xB), "BAR4: reports 2147483648 bytes and the function's own BAR has 0"),
    (put("=Q", 16, 4, region=7), "CONFIG: has 4 bytes and config space has 256 or 4096"),
    (put("=I", 8, 3, region=7), "asked about region 7, the kernel answers about region 3"),
])
def test_a_lie_that_could_be_true_is_judged(host: FakeHost, kernel: FakeKernel, lie: Any, reason: str) -> None:
    kernel.lie = lie
    reasons = failure(host, kernel, probe="full")["reasons"]
    assert any(reason in text for text in reasons), reasons


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.tuples(st.integers(0, 15), st.one_of(st.integers(0, 80), st.integers(0, 0xFFFFFFFF))),
                      min_size=1, max_size=6), region=st.integers(0, 8))
def test_no_answer_ends_in_anything_but_a_verdict(host: FakeHost, kernel: FakeKernel, words: list[tuple[int, int]],
                                                  region: int) -> None:
    def lie(index: int, buffer: bytearray) -> None:
        for place, value in words:
            if index == region and 4 * place + 4 <= len(buffer):
                struct.pack_into("=I", buffer, 4 * place, value)

    kernel.lie = lie
    try:
        (device,) = verify(host, kernel, force=True, probe="none")["devices"]
    except PassthroughError as error:
        (device,) = error.details["devices"]
        assert device["reasons"] and "Error in a child process" not in " ".join(device["reasons"])
    else:
        assert device["verdict"] == "ok"


def test_everything_is_closed_in_order(host: FakeHost, kernel: FakeKernel) -> None:
    with open_device(read_function(host, GPU), "group", kernel):
        assert kernel.closed == []
    assert kernel.closed == [DEVICE, GROUP, CONTAINER]


def with_cdev(host: FakeHost) -> None:
    host.write("/dev/iommu")
    host.write("/dev/vfio/devices/vfio0")


def test_cdev(host: FakeHost, kernel: FakeKernel) -> None:
    with_cdev(host)
    assert verify(host, kernel, api="cdev")["devices"][0]["api"] == "cdev"


def test_auto_takes_the_character_device_where_there_is_no_group_node(host: FakeHost, kernel: FakeKernel) -> None:
    with_cdev(host)
    host.remove("/dev/vfio/11")
    assert verify(host, kernel)["devices"][0]["api"] == "cdev"


@pytest.mark.parametrize(("number", "reason"), [
    (errno.EINVAL, "another process has it open, or the IOMMU is not coherent"),
    (errno.EPERM, "does not isolate interrupts"), (errno.ETIME, "did not become ready")])
def test_why_a_character_device_is_not_bound(host: FakeHost, kernel: FakeKernel, number: int, reason: str) -> None:
    with_cdev(host)
    kernel.fail[uapi.DEVICE_BIND_IOMMUFD] = number
    assert reason in failure(host, kernel, api="cdev")["reasons"][0]


def test_no_iommu_mode_is_refused(host: FakeHost, kernel: FakeKernel) -> None:
    host.write("/sys/kernel/iommu_groups/11/name", "vfio-noiommu\n")
    assert "which isolates nothing" in failure(host, kernel)["reasons"][0]
    assert kernel.openings() == []


def test_nothing_is_opened_where_a_setting_switches_the_isolation_off(host: FakeHost, kernel: FakeKernel) -> None:
    setting = "/sys/module/iommufd/parameters/allow_unsafe_interrupts"
    host.write(setting, "Y\n")
    assert failure(host, kernel)["reasons"][0].startswith(f"{setting} is on, so that VFIO takes devices that nothing")
    assert kernel.openings() == []


@pytest.mark.parametrize(("api", "reason"), [
    ("cdev", "has no VFIO character device"), ("group", "has no VFIO group node"), ("auto", "has neither"),
])
def test_an_interface_that_is_missing(host: FakeHost, kernel: FakeKernel, api: str, reason: str) -> None:
    host.remove("/dev/vfio/11")
    assert reason in failure(host, kernel, api=api)["reasons"][0]


def test_a_character_device_that_is_bound_elsewhere(host: FakeHost, kernel: FakeKernel) -> None:
    with_cdev(host)
    kernel.fail[uapi.DEVICE_BIND_IOMMUFD] = errno.EBUSY
    assert verify(host, kernel, api="cdev")["devices"][0]["verdict"] == "in-use"


def test_timeout_is_checked(host: FakeHost, kernel: FakeKernel) -> None:
    with pytest.raises(PassthroughError, match="timeout is 0"):
        verify(host, kernel, timeout=0)


def test_time_is_utc() -> None:
    assert len(utc_now()) == len(NOW) and utc_now().endswith("Z")
