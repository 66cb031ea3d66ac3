# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""region_verify end to end, on a made-up host with a model of VFIO."""

from __future__ import annotations

import errno
import json
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio import uapi
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
NOW = "2026-11-23T08:00:00Z"


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    made = grace_hopper(tmp_path)
    made.add_function(GPU, group=11, driver=VARIANT, resource=RESOURCE_GH, config=bytes(4096))
    return made


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    return FakeKernel(tmp_path, hopper_regions())


def verify(host: FakeHost, kernel: FakeKernel, memory: int | None = 2560 * MIB, **options: Any) -> dict[str, Any]:
    gpus = [{"address": GPU, "expected_memory": memory}]
    values = {"timeout": 20, "gpus": gpus, **options}
    return Verifier(host, VerifyOptions(**values), kernel, lambda: NOW).run()


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


def reboot(host: FakeHost) -> dict[str, Any]:
    host.write("/proc/sys/kernel/random/boot_id", "other\n")
    return {}


def rebuild(host: FakeHost) -> dict[str, Any]:
    host.write(f"/sys/module/{VARIANT}/srcversion", "OTHER\n")
    return {}


def regroup(host: FakeHost) -> dict[str, Any]:
    host.set_group(GPU, 12)
    return {}


@pytest.mark.parametrize("change", [reboot, rebuild, regroup, lambda _host: {"force": True},
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


def test_an_answer_that_loops_is_a_verdict(host: FakeHost, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def lying(buffer: bytearray) -> uapi.RegionInfo:
        raise uapi.UapiError("the capability chain of region 0 loops at 32")

    monkeypatch.setattr(uapi, "parse_region_info", lying)
    assert "makes no sense: BAR0: the capability chain" in failure(host, kernel)["reasons"][0]


def test_everything_is_closed_in_order(host: FakeHost, kernel: FakeKernel) -> None:
    from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.sysfs import read_function
    from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.device import open_device

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
