# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""A card of an x86 host with an audio function, on a real kernel with a real udev: consent, device nodes for a user
group, a driver and a process that hold it, a slot that it is taken out of and put into, a bus that it has left."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from emulated import LAB, EmulatedHost, start

NAME = "card"
CARD, AUDIO = "0000:01:00.0", "0000:01:00.1"
GPUS: dict[str, Any] = {"gpus": [{"address": CARD}]}
BOTH: dict[str, Any] = {**GPUS, "group_consent": [AUDIO]}
BEFORE = ["none", "snd_hda_intel"]
OWNER = "gpu-users"
RELEASED: dict[str, Any] = {"state": "released"}
STATE = ("/etc", "/var/lib/nvgrace-passthrough", "/run/udev/rules.d")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedHost]:
    started = start(NAME, tmp_path_factory.mktemp("lab"), "--arch", "amd64", "--product", "rtx-audio", "--hotplug")
    started.script(f"groupadd {OWNER}")
    yield started
    subprocess.run([LAB, "stop", NAME], check=True)


@pytest.fixture(autouse=True)
def given_back(host: EmulatedHost) -> Iterator[None]:
    """Each test leaves the host as it found it: files, drivers and overrides."""
    before = host.manifest(*STATE)
    yield
    released = host.module("gpu_driver", RELEASED)
    assert not released["failed"], released
    assert host.manifest(*STATE) == before


def gpu(*request: str) -> str:
    """A request to the emulated card itself."""
    return subprocess.run([LAB, "gpu", NAME, "0", *request], check=True, capture_output=True, text=True).stdout


def drivers(host: EmulatedHost) -> list[str]:
    return host.drivers(CARD, AUDIO)


def nodes(host: EmulatedHost) -> list[str]:
    """Owner and mode of the node of each function's IOMMU group."""
    return host.script(f"""
        for function in {CARD} {AUDIO}; do
            stat -c '%U:%G %a' "/dev/vfio/$(basename "$(readlink /sys/bus/pci/devices/$function/iommu_group)")"
        done""").splitlines()


def wait_for_functions(host: EmulatedHost) -> None:
    host.script(f"""
        for attempt in $(seq 60); do
            test ! -e /sys/bus/pci/devices/{CARD} || test ! -e /sys/bus/pci/devices/{AUDIO} || break
            sleep 1
        done
        udevadm settle""")


def test_the_audio_function_needs_consent(host: EmulatedHost) -> None:
    message = host.refusal("gpu_driver", GPUS)
    assert AUDIO in message and "consent" in message
    assert drivers(host) == BEFORE


def test_both_functions_are_bound_and_given_back(host: EmulatedHost) -> None:
    bound = host.module("gpu_driver", BOTH)
    assert bound["changed"] and not bound["failed"], bound
    assert drivers(host) == ["vfio-pci", "vfio-pci"]
    assert not host.module("gpu_driver", BOTH)["changed"]
    assert nodes(host) == ["root:root 600"] * 2


def test_device_nodes_belong_to_the_group(host: EmulatedHost) -> None:
    assert not host.module("gpu_driver", {**BOTH, "device_group": OWNER})["failed"]
    assert nodes(host) == [f"root:{OWNER} 660"] * 2
    host.script("udevadm trigger --subsystem-match=vfio; udevadm settle")
    assert nodes(host) == [f"root:{OWNER} 660"] * 2
    assert not host.module("gpu_driver", {**BOTH, "device_group": OWNER})["changed"]


@pytest.mark.parametrize("way", ["slot", "kernel"])
def test_a_card_that_comes_back_is_bound_by_its_rules(host: EmulatedHost, way: str) -> None:
    """Taken out of its slot and put in, or forgotten by the kernel and found again: nothing of the collection runs."""
    assert not host.module("gpu_driver", {**BOTH, "device_group": OWNER})["failed"]
    if way == "slot":
        gpu("vanish")
        host.script(f"test ! -e /sys/bus/pci/devices/{CARD}")
        gpu("add")
    else:
        host.script(f"""
            for function in {AUDIO} {CARD}; do echo 1 > /sys/bus/pci/devices/$function/remove; done
            echo 1 > /sys/bus/pci/rescan""")
    wait_for_functions(host)
    assert drivers(host) == ["vfio-pci", "vfio-pci"]
    assert nodes(host) == [f"root:{OWNER} 660"] * 2
    assert not host.module("gpu_driver", {**BOTH, "device_group": OWNER})["changed"]


def test_a_reboot_binds_it(host: EmulatedHost) -> None:
    assert not host.module("gpu_driver", {**BOTH, "device_group": OWNER})["failed"]
    subprocess.run([LAB, "reboot", NAME], check=True)
    wait_for_functions(host)
    assert drivers(host) == ["vfio-pci", "vfio-pci"]
    assert nodes(host) == [f"root:{OWNER} 660"] * 2


def test_a_card_that_is_not_there_is_given_back_all_the_same(host: EmulatedHost) -> None:
    assert not host.module("gpu_driver", BOTH)["failed"]
    gpu("vanish")
    try:
        message = host.refusal("gpu_driver", BOTH)
        assert CARD in message
        released = host.module("gpu_driver", RELEASED)
        assert released["changed"] and not released["failed"], released
    finally:
        gpu("add")
        wait_for_functions(host)
    assert drivers(host) == BEFORE


def test_an_event_that_is_made_again_unbinds_nothing(host: EmulatedHost) -> None:
    assert not host.module("gpu_driver", BOTH)["failed"]
    host.script("udevadm trigger --action=add --subsystem-match=pci; udevadm settle")
    assert drivers(host) == ["vfio-pci", "vfio-pci"]
    host.script(f"""
        echo {AUDIO} > /sys/bus/pci/devices/{AUDIO}/driver/unbind
        echo snd_hda_intel > /sys/bus/pci/devices/{AUDIO}/driver_override
        echo {AUDIO} > /sys/bus/pci/drivers_probe
        udevadm trigger --action=add --subsystem-match=pci
        udevadm settle""")
    assert drivers(host) == ["vfio-pci", "snd_hda_intel"]
    again = host.module("gpu_driver", BOTH)
    assert again["changed"] and drivers(host) == ["vfio-pci", "vfio-pci"], again


def test_a_card_that_has_fallen_off_the_bus(host: EmulatedHost) -> None:
    gpu("gone")
    try:
        message = host.refusal("gpu_driver", BOTH)
        assert f"{CARD} does not answer" in message and "nothing was changed" in message
    finally:
        gpu("back")
    assert drivers(host) == BEFORE


def test_a_driver_and_a_process_hold_it(host: EmulatedHost) -> None:
    holder = json.loads(subprocess.run([LAB, "hold", NAME, "0", "nvidia"], check=True, capture_output=True,
                                       text=True).stdout)
    try:
        message = host.refusal("gpu_driver", BOTH)
        assert str(holder["pid"]) in message and holder["node"] in message
        assert drivers(host)[0] == "nvidia"
        waited = host.refusal("gpu_driver", {**BOTH, "in_use": "wait", "timeout": 5})
        assert str(holder["pid"]) in waited
    finally:
        subprocess.run([LAB, "let-go", NAME, "0"], check=True)
    bound = host.module("gpu_driver", BOTH)
    assert bound["changed"] and not bound["failed"], bound
    assert drivers(host) == ["vfio-pci", "vfio-pci"]
    assert not host.module("gpu_driver", RELEASED)["failed"]
    assert drivers(host)[0] == "nvidia"
    host.script("modprobe -r nvidia || rmmod nvidia")
