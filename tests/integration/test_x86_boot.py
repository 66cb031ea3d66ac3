# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel arguments and options of a loaded module on an x86 host that boots by GRUB: each comes with a reboot and goes
with another, and what waits for one is said until it has been. The scenario "upgrade" has this for arm64."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from emulated import LAB, EmulatedHost, start

NAME = "x86-boot"
OPTION = "options vfio_pci disable_idle_d3=1"
WISH: dict[str, Any] = {
    "kernel_settings": {"numa_balancing": "disabled", "iommu_strict": "disabled", "iommu": "auto"},
    "kernel_arguments": ["video=efifb:off"], "modprobe_options": [OPTION], "update_initramfs": "never"}
ABSENT: dict[str, Any] = {"state": "absent", "update_initramfs": "never"}
ARGUMENTS = ["iommu.strict=0", "numa_balancing=disable", "video=efifb:off"]
SHOWN = "modprobe vfio_pci; cat /sys/module/vfio_pci/parameters/disable_idle_d3"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedHost]:
    yield start(NAME, tmp_path_factory.mktemp("lab"), "--arch", "amd64", "--product", "h100-pcie", "--boot", "firmware")
    subprocess.run([LAB, "stop", NAME], check=True)


def reboot() -> None:
    subprocess.run([LAB, "reboot", NAME], check=True)


def config(host: EmulatedHost, wish: dict[str, Any], changed: bool) -> list[str]:
    """Runs host_config, and returns why a reboot is due."""
    result = host.module("host_config", wish)
    assert (result["failed"], result["changed"], result["bootloader"]) == (False, changed, "grub"), result
    assert result["reboot_required"] is bool(result["reboot_reasons"])
    assert result["untested"] == []
    reasons: list[str] = result["reboot_reasons"]
    return reasons


def test_arguments_and_options_come_with_a_reboot_and_go_with_another(host: EmulatedHost) -> None:
    before, cmdline = host.manifest(), host.run("cat", "/proc/cmdline")
    assert host.script(SHOWN) == "N\n"

    due = [f"The kernel argument {argument} is not in effect yet." for argument in ARGUMENTS]
    due.append(f"The line '{OPTION}' of modprobe.d is not in effect yet, because its module was loaded before.")
    assert config(host, WISH, True) == due
    assert config(host, WISH, False) == due
    reboot()
    assert [word for word in host.run("cat", "/proc/cmdline").split() if word in ARGUMENTS] == ARGUMENTS
    assert host.script(SHOWN) == "Y\n"
    assert config(host, WISH, False) == []

    due = [f"The kernel argument {argument} is in effect until then." for argument in ARGUMENTS]
    assert config(host, ABSENT, True) == due
    assert config(host, ABSENT, False) == due
    reboot()
    assert host.run("cat", "/proc/cmdline") == cmdline
    assert config(host, ABSENT, False) == []
    assert host.script(SHOWN) == "N\n"
    assert host.manifest() == before
