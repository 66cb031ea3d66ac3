# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""region_verify on real kernels: each driver, each layout, both interfaces, and a GPU that becomes ready late.

The kernel's own driver is the unchanged one of linux-source 7.3 under another module name, as in tests/kmod. The debug
kernel (amd64) is the only one of the lab that has IOMMUFD; building it takes long: NVGRACE_SKIP_DEBUG=1 leaves it out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from emulated import LAB, ROOT, EmulatedHost, start

sys.path.append(str(ROOT / "tests" / "kmod"))

from suite import debugkernel, driver
from suite.driver import MAINLINE, OURS, Driver
from suite.host import Host

MIB = 1 << 20
GIB = 1 << 30
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "verification.schema.json").read_text())
# ansible's command line does not print the diff of a result.
PRINTED = [name for name in SCHEMA["required"] if name != "diff"]
GPU_480GB = {"vendor_device": "10de:2345", "expected_memory": 2816 * MIB}
GPU_GB200 = {"vendor_device": "10de:2941", "expected_memory": 1280 * MIB}
PLAIN = Driver("vfio-pci", "", "vfio-pci")

# index -> role, reported, actual; bytes
MAINLINE_480GB = {2: ("resmem", 2 * GIB, 1280 * MIB), 4: ("usemem", 2 * GIB, 1536 * MIB)}
BAR2_480GB = {2: ("usemem", 4 * GIB, 2816 * MIB)}
MAINLINE_GB200 = {2: ("physical", 32 * MIB, 32 * MIB), 4: ("usemem", 2 * GIB, 1280 * MIB)}
BAR2_GB200 = {2: ("usemem", 2 * GIB, 1280 * MIB)}


@dataclass(frozen=True)
class Lab:
    """One host, as the modules and as the tests of the kernel module see it."""

    modules: EmulatedHost
    kernel: Host

    def bind(self, which: Driver, options: str = "") -> None:
        """Load the driver and give the GPU to it."""
        address = self.kernel.facts().gpus[0].address
        driver.unbind(self.kernel, address)
        if which is PLAIN:
            self.kernel.do(f"""set -e
                modprobe vfio-pci
                echo vfio-pci > /sys/bus/pci/devices/{address}/driver_override
                echo {address} > /sys/bus/pci/drivers/vfio-pci/bind""")
        else:
            driver.load(self.kernel, which, options)
            driver.bind(self.kernel, which, address)

    def verify(self, gpu: dict[str, Any], **options: Any) -> dict[str, Any]:
        """The only device of a run; the whole result has the published form."""
        result = self.modules.module("region_verify", {"gpus": [gpu], "force": True, "probe": "full", **options})
        jsonschema.validate({name: result[name] for name in PRINTED}, {**SCHEMA, "required": PRINTED})
        (device,) = result["devices"]
        assert result["failed"] == (device["verdict"] == "fail")
        assert isinstance(device, dict)
        return device


def lab(name: str, directory: Path, *options: str) -> Iterator[Lab]:
    yield Lab(start(name, directory, *options), Host(name))
    subprocess.run([LAB, "stop", name], check=True)


@pytest.fixture(scope="module")
def hopper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Both of its regions have a hole, and both drivers are built for it."""
    for host in lab("verify", tmp_path_factory.mktemp("lab"), "--product", "gh200-480gb"):
        driver.build(host.kernel, OURS)
        driver.build(host.kernel, MAINLINE)
        yield host


@pytest.fixture(scope="module")
def blackwell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """No MIG bug, so no resmem, and a physical BAR2."""
    for host in lab("verify-gb", tmp_path_factory.mktemp("lab"), "--product", "gb200"):
        driver.build(host.kernel, OURS)
        yield host


@pytest.fixture(scope="module")
def without_properties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Firmware says nothing of the memory."""
    options = ("--product", "gh200-480gb", "--fault", "no-properties")
    for host in lab("verify-fb", tmp_path_factory.mktemp("lab"), *options):
        driver.build(host.kernel, OURS)
        driver.build(host.kernel, MAINLINE)
        yield host


@pytest.fixture(scope="module")
def debug_kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The only kernel with IOMMUFD."""
    if os.environ.get("NVGRACE_SKIP_DEBUG"):
        pytest.skip("NVGRACE_SKIP_DEBUG is set")
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NVGRACE_KMOD_KO", str(debugkernel.build_driver(OURS, Path(name) / "ours")))
        options = ("--arch", "amd64", "--kernel", "debug", "--product", "gh200-480gb")
        for host in lab("verify-cdev", tmp_path_factory.mktemp("lab"), *options):
            driver.build(host.kernel, OURS)
            yield host


def emulated(device: dict[str, Any]) -> dict[int, tuple[str, int, int]]:
    """The regions that are not what every device has."""
    return {region["index"]: (region["role"], region["reported"], region["actual"]) for region in device["regions"]
            if region["index"] in (2, 4) and region["reported"]}


@pytest.mark.parametrize(("which", "options", "layout", "who", "regions"), [
    (OURS, "", "mainline", "collection", MAINLINE_480GB),
    (OURS, "layout=bar2", "bar2", "collection", BAR2_480GB),
    (MAINLINE, "", "mainline", "kernel", MAINLINE_480GB),
], ids=["ours", "ours-bar2", "kernel"])
def test_gh200(hopper: Lab, which: Driver, options: str, layout: str, who: str,
               regions: dict[int, tuple[str, int, int]]) -> None:
    hopper.bind(which, options)
    device = hopper.verify(GPU_480GB)
    assert (device["verdict"], device["reasons"]) == ("ok", [])
    assert (device["layout"], device["implementation"], device["api"]) == (layout, who, "group")
    assert emulated(device) == regions
    # The kernel's own has no MODULE_VERSION, and so no srcversion.
    path = f"/sys/module/{which.module}/srcversion"
    srcversion = hopper.kernel.do(f"test ! -e {path} || cat {path}").strip()
    assert bool(srcversion) == (which is not MAINLINE)
    assert (device["srcversion"] or "") == srcversion
    noted = " ".join(device["notes"])
    expected = (True, True) if who == "kernel" else (False, False)
    assert ("config read that spans several" in noted, "cuts a read" in noted) == expected, device["notes"]
    tried = [text for region in device["regions"] for text in region["evidence"] if "in a child process" in text]
    assert any("was restored" in text for text in tried) and any("BAR registers say" in text for text in tried)


@pytest.mark.parametrize(("options", "layout", "regions"), [
    ("", "mainline", MAINLINE_GB200), ("layout=bar2", "bar2", BAR2_GB200)])
def test_gb200(blackwell: Lab, options: str, layout: str, regions: dict[int, tuple[str, int, int]]) -> None:
    blackwell.bind(OURS, options)
    device = blackwell.verify(GPU_GB200)
    assert (device["verdict"], device["reasons"], device["layout"]) == ("ok", [], layout)
    found = emulated(device)
    assert {index: found[index] for index in regions} == regions


def test_the_wrong_layout_and_the_wrong_size_are_told(hopper: Lab) -> None:
    hopper.bind(OURS, "layout=bar2")
    device = hopper.verify(GPU_480GB, layout="mainline")
    assert device["verdict"] == "fail" and device["reasons"][0] == "The layout is bar2 and mainline was asked for."
    device = hopper.verify({**GPU_480GB, "expected_memory": 3 * GIB})
    assert any("3221225472 were expected" in reason for reason in device["reasons"])


def test_a_record_does_not_outlive_the_layout(hopper: Lab) -> None:
    hopper.bind(OURS)
    assert hopper.verify(GPU_480GB)["from_record"] is False
    assert hopper.verify(GPU_480GB, force=False)["from_record"] is True
    hopper.bind(OURS, "layout=bar2")
    device = hopper.verify(GPU_480GB, force=False)
    assert (device["from_record"], device["layout"]) == (False, "bar2")


def test_plain_vfio_pci(hopper: Lab) -> None:
    hopper.bind(PLAIN)
    device = hopper.verify(GPU_480GB)
    assert (device["verdict"], device["layout"], device["implementation"]) == ("fail", "plain", "vfio-pci")
    assert "The driver is vfio-pci, which cannot show the GPU's coherent memory" in device["reasons"][0]
    assert emulated(device) == {}


@pytest.mark.parametrize(("which", "reason"), [
    # ours says why in the kernel log; the kernel's own says nothing, and what ours said before is not taken for its
    (OURS, "nvidia,gpu-mem-base-pa cannot be read"),
    (MAINLINE, "the firmware tables hold no nvidia,gpu-mem properties"),
], ids=["ours", "kernel"])
def test_fallback(without_properties: Lab, which: Driver, reason: str) -> None:
    without_properties.bind(which)
    device = without_properties.verify(GPU_480GB)
    assert (device["verdict"], device["layout"]) == ("fail", "fallback")
    assert reason in device["reasons"][0]


def test_a_gpu_that_becomes_ready_late_is_waited_for(hopper: Lab) -> None:
    hopper.bind(OURS)
    hopper.kernel.gpu("ready-after 20")
    try:
        started = time.monotonic()
        device = hopper.verify(GPU_480GB)
        assert time.monotonic() - started > 15
        assert device["verdict"] == "ok"
        journal = hopper.kernel.do("journalctl -b --no-pager | grep region_verify")
        assert "opening, which resets it; this may take 60 seconds" in journal
        assert "not verified after 15 of at most 60 seconds" in journal
    finally:
        hopper.kernel.gpu("ready")


def test_a_gpu_that_never_becomes_ready_is_given_up(hopper: Lab) -> None:
    hopper.bind(OURS)
    hopper.kernel.gpu("not-ready")
    try:
        started = time.monotonic()
        device = hopper.verify(GPU_480GB, timeout=10)
        assert time.monotonic() - started < 60
        assert (device["verdict"], device["api"]) == ("fail", "group")
        assert "did not end within 10 seconds" in device["reasons"][0]
    finally:
        hopper.kernel.gpu("ready")


@pytest.mark.parametrize("options", ["", "layout=bar2"], ids=["mainline", "bar2"])
@pytest.mark.parametrize("api", ["group", "cdev"])
def test_both_interfaces_show_the_same(debug_kernel: Lab, options: str, api: str) -> None:
    debug_kernel.bind(OURS, options)
    device = debug_kernel.verify(GPU_480GB, api=api)
    assert (device["verdict"], device["reasons"], device["api"]) == ("ok", [], api)
    assert emulated(device) == (BAR2_480GB if options else MAINLINE_480GB)


def test_a_device_that_is_open_by_its_file_is_in_use(debug_kernel: Lab) -> None:
    debug_kernel.bind(OURS)
    address = debug_kernel.kernel.facts().gpus[0].address
    holder = debug_kernel.modules.script(
        f"node=$(ls /sys/bus/pci/devices/{address}/vfio-dev)\n"
        "setsid sleep 600 <>/dev/vfio/devices/$node >/dev/null 2>&1 &\necho $!").strip()
    try:
        device = debug_kernel.verify(GPU_480GB)
        assert device["verdict"] == "in-use" and holder in " ".join(device["reasons"])
    finally:
        debug_kernel.modules.script(f"kill {holder}")
