# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Giving back: whatever binding did, everything is as it was before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.driver import bind_gpus
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.giveback import release_gpus
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.options import DriverOptions
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.persist import MODULES_LOAD, rule_path
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.record import load_records
from ansible_collections.nvgrace.passthrough.tests.unit._gpu.fake_sysfs import (
    DRIVER_OF_MODULE,
    VARIANT,
    FakeHost,
    grace_blackwell,
    grace_hopper,
    options,
    x86_card,
)

GPU = "0009:01:00.0"
CARD, AUDIO = "0000:41:00.0", "0000:41:00.1"


def consenting(*addresses: str, **changes: Any) -> DriverOptions:
    return options(*addresses, consent=frozenset({AUDIO}), **changes)


def plain(host: FakeHost) -> None:
    """The host as the helpers make it."""


def with_rule_of_another_hand(host: FakeHost) -> None:
    for address in (GPU, CARD):
        host.write(rule_path(address), b"# somebody's own\xff\n")
    host.write(MODULES_LOAD, "loop\n")


def with_override(host: FakeHost) -> None:
    for address in host.listdir("/sys/bus/pci/devices"):
        driver = host.driver(address)
        if driver:
            host.write(f"/sys/bus/pci/devices/{address}/driver_override", f"{driver}\n")


@pytest.mark.parametrize("make", [grace_hopper, x86_card])
@pytest.mark.parametrize("prepare", [plain, with_rule_of_another_hand, with_override])
def test_everything_is_given_back(tmp_path: Path, make: Any, prepare: Any) -> None:
    host = make(tmp_path)
    prepare(host)
    before = host.manifest()
    gpu = GPU if make is grace_hopper else CARD
    bind_gpus(host, consenting(gpu))
    assert host.manifest() != before
    result = release_gpus(host, consenting())
    assert host.manifest() == before
    assert (result["changed"], result["warnings"]) == (True, [])
    again = release_gpus(host, consenting())
    assert (again["changed"], again["devices"]) == (False, [])


def test_steps_undo_the_boot_files_first_and_forget_last(tmp_path: Path) -> None:
    host = x86_card(tmp_path)
    host.with_udev()
    bind_gpus(host, consenting(CARD))
    assert release_gpus(host, consenting(CARD))["actions"] == [
        f"restore {rule_path(CARD)}",
        f"restore {rule_path(AUDIO)}",
        f"restore {MODULES_LOAD}",
        "run udevadm control --reload (udev reads its rules again)",
        f"unbind {CARD} from vfio-pci",
        f"unbind {AUDIO} from vfio-pci",
        f"set driver_override of {CARD} to nothing",
        f"bind {CARD} to nouveau",
        f"set driver_override of {AUDIO} to nothing",
        f"bind {AUDIO} to snd_hda_intel",
        f"forget {CARD} in /var/lib/nvgrace-passthrough",
        f"forget {AUDIO} in /var/lib/nvgrace-passthrough",
    ]


def test_one_of_two_gpus(tmp_path: Path) -> None:
    host = grace_blackwell(tmp_path)
    bind_gpus(host, consenting("0008:01:00.0", "0009:01:00.0"))
    release_gpus(host, consenting("0008:01:00.0"))
    assert (host.driver("0008:01:00.0"), host.driver("0009:01:00.0")) == (None, VARIANT)
    assert VARIANT in host.read(MODULES_LOAD)
    assert list(load_records(host)) == ["0009:01:00.0"]
    release_gpus(host, consenting("0009:01:00.0"))
    assert not host.has(MODULES_LOAD)


def test_a_gpu_without_record_is_left_alone(tmp_path: Path) -> None:
    host = grace_blackwell(tmp_path)
    bind_gpus(host, consenting("0008:01:00.0"))
    assert release_gpus(host, consenting("0019:01:00.0")) == {
        "changed": False, "actions": [], "devices": [], "warnings": [], "diff": release_gpus(
            host, consenting("0019:01:00.0"))["diff"]}
    assert host.driver("0008:01:00.0") == VARIANT


def test_check_mode_says_the_same_and_touches_nothing(tmp_path: Path) -> None:
    host = x86_card(tmp_path)
    bind_gpus(host, consenting(CARD))
    before, log = host.manifest(), host.log()
    predicted = release_gpus(host, consenting(check_mode=True))
    assert (host.manifest(), host.log()) == (before, log)
    assert predicted["actions"] == release_gpus(host, consenting())["actions"]


def test_both_sides_of_the_diff(tmp_path: Path) -> None:
    host = x86_card(tmp_path)
    bind_gpus(host, consenting(CARD))
    diff = release_gpus(host, consenting(check_mode=True))["diff"]
    before, after = (json.loads(diff[side])["devices"][0] for side in ("before", "after"))
    assert (before["address"], before["driver"], before["persistent"]) == (CARD, "vfio-pci", True)
    assert (after["driver"], after["driver_override"], after["persistent"]) == ("nouveau", None, False)
    assert {key for key in before if before[key] == after[key]} == {"address", "group", "device_group"}


def test_a_gpu_in_a_vm_is_not_taken_away(tmp_path: Path) -> None:
    host = grace_hopper(tmp_path)
    bind_gpus(host, consenting(GPU))
    host.add_process(7, "qemu-system-aar", ["/dev/vfio/11"], b"qemu-system-aarch64\0-name\0guest=train7\0-S\0")
    before = host.manifest()
    with pytest.raises(PassthroughError, match=r"virtual machine train7 \(pid 7\) holds /dev/vfio/11"):
        release_gpus(host, consenting())
    assert host.manifest() == before


def test_a_device_that_left_the_host(tmp_path: Path) -> None:
    host = grace_hopper(tmp_path)
    bind_gpus(host, consenting(GPU))
    shutil.rmtree(host.base / "sys/bus/pci/devices" / GPU)
    result = release_gpus(host, consenting(GPU))
    assert result["warnings"] == [f"{GPU} was 10de:2342 when it was bound and nothing is there now: only its files are "
                                  "given back."]
    assert not host.has(rule_path(GPU))
    assert load_records(host) == {}


def test_another_card_in_the_slot_is_not_touched(tmp_path: Path) -> None:
    host = grace_hopper(tmp_path)
    bind_gpus(host, consenting(GPU))
    shutil.rmtree(host.base / "sys/bus/pci/devices" / GPU)
    host.add_function(GPU, device="2941", group=11, driver="nouveau")
    log = host.log()
    assert "10de:2941 is there now" in release_gpus(host, consenting())["warnings"][0]
    assert host.log() == log
    assert host.driver(GPU) == "nouveau"


def unload(host: FakeHost, module: str) -> None:
    """As after a reboot where something keeps the module from loading."""
    driver = DRIVER_OF_MODULE[module]
    shutil.rmtree(host.base / "sys/bus/pci/drivers" / driver)
    shutil.rmtree(host.base / "sys/module" / module)


def test_a_previous_driver_that_is_gone_is_loaded_first(tmp_path: Path) -> None:
    host = x86_card(tmp_path)
    before = host.manifest()
    bind_gpus(host, consenting(CARD))
    unload(host, "nouveau")
    predicted = release_gpus(host, consenting(check_mode=True))
    done = release_gpus(host, consenting())
    assert done["actions"][0] == "run modprobe nouveau (load the previous driver)"
    assert predicted["actions"] == done["actions"]
    assert (host.driver(CARD), host.manifest()) == ("nouveau", before)


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_previous_driver_that_cannot_be_loaded_stops_before_anything_is_changed(tmp_path: Path,
                                                                                  check_mode: bool) -> None:
    host = x86_card(tmp_path)
    bind_gpus(host, consenting(CARD))
    unload(host, "nouveau")
    host.missing_modules.add("nouveau")
    before = host.manifest()
    with pytest.raises(PassthroughError, match="Module nouveau not found"):
        release_gpus(host, consenting(check_mode=check_mode))
    assert host.manifest() == before


def test_a_record_of_an_older_version_does_not_know_the_module(tmp_path: Path) -> None:
    host = x86_card(tmp_path)
    bind_gpus(host, consenting(CARD))
    for address in (CARD, AUDIO):
        path = f"/var/lib/nvgrace-passthrough/{address}.json"
        record = json.loads(host.read(path))
        for key in ("previous_module", "group", "device_group"):
            del record["binding"][key]
        host.write(path, json.dumps(record))
    unload(host, "nouveau")
    before = host.manifest()
    with pytest.raises(PassthroughError, match="cannot go back to nouveau, which is not loaded.*Nothing was changed"):
        release_gpus(host, consenting())
    assert host.manifest() == before
    host.load("nouveau")
    release_gpus(host, consenting())
    assert host.driver(CARD) == "nouveau"


def test_verification_goes_with_the_binding(tmp_path: Path) -> None:
    host = grace_hopper(tmp_path)
    bind_gpus(host, consenting(GPU))
    path = f"/var/lib/nvgrace-passthrough/{GPU}.json"
    host.write(path, json.dumps({**json.loads(host.read(path)), "verification": {"verdict": "ok"}}))
    release_gpus(host, consenting())
    assert not host.has("/var/lib/nvgrace-passthrough")


@pytest.mark.parametrize("binding", [{"driver": "x"}, {"companion_of": [], "unknown": 1}])
def test_a_damaged_record_is_an_error(tmp_path: Path, binding: Any) -> None:
    host = grace_hopper(tmp_path)
    host.write(f"/var/lib/nvgrace-passthrough/{GPU}.json", json.dumps({"binding": binding}))
    with pytest.raises(PassthroughError, match="holds no valid binding"):
        release_gpus(host, consenting())


@pytest.mark.parametrize(("group", "warned"), [(7, True), (8, False)])
def test_a_gpu_that_stays_in_the_group_of_one_that_goes_is_warned_of(tmp_path: Path, group: int, warned: bool) -> None:
    host = x86_card(tmp_path)
    other = "0000:42:00.0"
    host.add_function(other, device="2684", class_code="030000", group=group, driver="nouveau")
    bind_gpus(host, consenting(CARD, other))
    warning = (f"{other} stays bound and shares its IOMMU group with {CARD}, which goes back to the host: no VM can "
               "have it meanwhile.")
    assert (warning in release_gpus(host, options(CARD))["warnings"]) is warned
    assert host.driver(other) == "vfio-pci"
    assert release_gpus(host, DriverOptions(gpus=None))["warnings"] == []


HOSTDEV = """<domain type='kvm'><devices><hostdev mode='subsystem' type='pci' managed='yes'><source>
  <address {address}/></source><address type='pci' domain='0x0000' bus='0x08' slot='0x00' function='0x0'/></hostdev>
  </devices></domain>"""


@pytest.mark.parametrize(("name", "text", "warned"), [
    ("vm1.xml", HOSTDEV.format(address="domain='0x0009' bus='0x01' slot='0x00' function='0x0'"), True),
    ("vm1.xml", HOSTDEV.format(address="domain='9' bus='1' slot='0' function='0'"), True),
    ("vm1.xml", HOSTDEV.format(address="domain='0x0008' bus='0x01' slot='0x00' function='0x0'"), False),
    ("vm1.xml", HOSTDEV.format(address="domain='0x0009' bus='x' slot='0x00' function='0x0'"), False),
    ("vm1.xml", "<domain", False),
    ("vm1.xml.bak", HOSTDEV.format(address="domain='0x0009' bus='0x01' slot='0x00' function='0x0'"), False),
])
def test_a_domain_that_names_a_gpu_that_goes_is_told(tmp_path: Path, name: str, text: str, warned: bool) -> None:
    host = grace_hopper(tmp_path)
    bind_gpus(host, options(GPU))
    host.write(f"/etc/libvirt/qemu/{name}", text)
    warning = (f"The domain vm1 still passes {GPU} through, which goes back to the host: starting it fails, or takes "
               "the GPU from the host where it is managed; take it out of the domain.")
    assert release_gpus(host, DriverOptions(gpus=None))["warnings"] == [warning] * warned
