# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may open the device nodes: root, or a named group, never everybody."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import CommandError, PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu import nodes
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.driver import bind_gpus
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.giveback import release_gpus
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.persist import rule_path
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.record import load_records
from ansible_collections.nvgrace.passthrough.tests.unit._gpu.fake_sysfs import (
    GROUPS,
    VARIANT,
    FakeHost,
    grace_blackwell,
    grace_hopper,
    options,
    x86_card,
)

GPU = "0009:01:00.0"
CARD, AUDIO = "0000:41:00.0", "0000:41:00.1"
NODES = ("/dev/vfio/11", "/dev/vfio/devices/vfio1")
ROOT, OF_GROUP = (0, 0o600), (GROUPS["vfio"], 0o660)


def owners(host: FakeHost, paths: tuple[str, ...] = NODES) -> list[Any]:
    return [host.owner_of(path) for path in paths]


def host_with(root: Path, udev: bool) -> FakeHost:
    host = grace_hopper(root)
    if udev:
        host.with_udev()
    return host


@pytest.mark.parametrize("udev", [True, False])
@pytest.mark.parametrize("persistent", [True, False])
def test_given_to_a_group_and_back(tmp_path: Path, udev: bool, persistent: bool) -> None:
    host = host_with(tmp_path, udev)
    before = host.manifest()
    wish = options(GPU, device_group="vfio", persistent=persistent)
    predicted = bind_gpus(host, options(GPU, device_group="vfio", persistent=persistent, check_mode=True))
    result = bind_gpus(host, wish)
    assert owners(host) == [OF_GROUP, OF_GROUP]
    assert predicted["actions"] == result["actions"]
    assert result["actions"][-1] == f"give the device nodes of {GPU} to the group vfio"
    assert [device["device_group"] for device in result["devices"]] == ["vfio"]
    assert any(line.startswith("udevadm trigger") for line in host.log()) == (udev and persistent)
    assert not bind_gpus(host, wish)["changed"]
    release_gpus(host, options())
    assert host.manifest() == before


@pytest.mark.parametrize("udev", [True, False])
def test_without_a_group_they_are_roots_alone(tmp_path: Path, udev: bool) -> None:
    host = host_with(tmp_path, udev)
    result = bind_gpus(host, options(GPU))
    assert owners(host) == [ROOT, ROOT]
    assert result["warnings"] == []
    assert "GROUP" not in host.read(rule_path(GPU))


@pytest.mark.parametrize("udev", [True, False])
@pytest.mark.parametrize(("first", "second", "expected"), [
    (None, "vfio", OF_GROUP), ("vfio", None, ROOT), ("kvm", "vfio", OF_GROUP),
])
def test_a_group_that_changes(tmp_path: Path, udev: bool, first: Any, second: Any, expected: Any) -> None:
    host = host_with(tmp_path, udev)
    bind_gpus(host, options(GPU, device_group=first))
    result = bind_gpus(host, options(GPU, device_group=second))
    assert result["changed"] and owners(host) == [expected, expected]
    assert not any(action.startswith(("bind", "unbind")) for action in result["actions"])
    assert not bind_gpus(host, options(GPU, device_group=second))["changed"]


def test_what_another_hand_did_to_a_node_is_mended(tmp_path: Path) -> None:
    host = host_with(tmp_path, True)
    bind_gpus(host, options(GPU, device_group="vfio"))
    host.set_owner(NODES[0], 0, 0o666)
    assert bind_gpus(host, options(GPU, device_group="vfio"))["actions"] == [
        f"give the device nodes of {GPU} to the group vfio"]
    assert owners(host) == [OF_GROUP, OF_GROUP]


def test_the_rule_is_for_the_function_whatever_number_its_group_has(tmp_path: Path) -> None:
    host = host_with(tmp_path, True)
    bind_gpus(host, options(GPU, device_group="vfio"))
    rule = host.read(rule_path(GPU)).splitlines()
    assert rule[5:] == [
        f'SUBSYSTEM=="vfio", TEST=="/sys/kernel/iommu_groups/%k/devices/{GPU}", GROUP="vfio", MODE="0660"',
        f'SUBSYSTEM=="vfio-dev", KERNELS=="{GPU}", GROUP="vfio", MODE="0660"']
    # the function is taken out and put in again, and the kernel counts on: udev alone brings everything back
    shutil.rmtree(host.base / "sys/bus/pci/devices" / GPU)
    shutil.rmtree(host.base / "sys/kernel/iommu_groups/11")
    host.add_function(GPU, group=57)
    host.hotplug(GPU)
    assert host.driver(GPU) == VARIANT
    assert owners(host, ("/dev/vfio/57", "/dev/vfio/devices/vfio1")) == [OF_GROUP, OF_GROUP]
    result = bind_gpus(host, options(GPU, device_group="vfio"))
    assert result["warnings"] == [f"{GPU} was in IOMMU group 11 at the last run and is in 57 now: what names the old "
                                  "group elsewhere is out of date."]
    assert result["actions"] == [f"record {GPU} in /var/lib/nvgrace-passthrough"]
    assert bind_gpus(host, options(GPU, device_group="vfio"))["warnings"] == []


def test_other_gpus_keep_their_owners(tmp_path: Path) -> None:
    host = grace_blackwell(tmp_path)
    host.with_udev()
    bind_gpus(host, options("0008:01:00.0"))
    bind_gpus(host, options("0009:01:00.0", device_group="vfio"))
    assert [host.owner_of(f"/dev/vfio/{number}") for number in (20, 21)] == [ROOT, OF_GROUP]


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_group_that_does_not_exist(tmp_path: Path, check_mode: bool) -> None:
    host = host_with(tmp_path, True)
    before = host.manifest()
    with pytest.raises(PassthroughError, match=r"There is no group nosuch on this host: create it \(groupadd --system"):
        bind_gpus(host, options(GPU, device_group="nosuch", check_mode=check_mode))
    assert (host.manifest(), host.log()) == (before, [])


def test_a_rule_by_another_hand_that_wins_is_told_and_everything_is_put_back(tmp_path: Path) -> None:
    host = host_with(tmp_path, True)
    host.write("/etc/udev/rules.d/99-open.rules", 'SUBSYSTEM=="vfio", MODE="0666"\n')
    before = host.manifest()
    with pytest.raises(PassthroughError, match=r"/dev/vfio/11 has group 990 and mode 666 where group vfio \(990\) and "
                                               r"mode 660 were asked for: another udev rule"):
        bind_gpus(host, options(GPU, device_group="vfio"))
    assert host.manifest() == before


def test_nodes_that_are_open_to_everybody_are_warned_of(tmp_path: Path) -> None:
    host = host_with(tmp_path, True)
    host.write("/etc/udev/rules.d/99-open.rules", '# all\nSUBSYSTEM=="vfio", MODE="0666"\n')
    assert bind_gpus(host, options(GPU))["warnings"] == [
        "/dev/vfio/11 has mode 666, so that users outside its group can open the device: find the udev rule that says "
        "so.",
        "/etc/udev/rules.d/99-open.rules:2 opens VFIO devices to everybody: take the last digit of its MODE away."]


def test_a_function_that_was_a_vfio_device_before_us_keeps_what_other_rules_say(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.with_udev()
    host.write("/etc/udev/rules.d/50-site.rules", 'SUBSYSTEM=="vfio-dev", GROUP="kvm", MODE="0660"\n')
    host.add_function(GPU, group=11, driver=VARIANT)
    before = host.manifest()
    bind_gpus(host, options(GPU, device_group="vfio"))
    assert host.owner_of("/dev/vfio/devices/vfio0") == OF_GROUP
    release_gpus(host, options())
    assert host.manifest() == before
    assert host.owner_of("/dev/vfio/devices/vfio0") == (GROUPS["kvm"], 0o660)


def test_nobody_takes_nodes_back_that_nobody_gave(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.with_udev()
    host.add_function(GPU, group=11, driver=VARIANT)
    bind_gpus(host, options(GPU))
    assert not [action for action in release_gpus(host, options())["actions"] if "device nodes" in action]


def test_the_nodes_of_a_card_that_was_taken_out_are_nobodys(tmp_path: Path) -> None:
    host = host_with(tmp_path, True)
    bind_gpus(host, options(GPU, device_group="vfio"))
    shutil.rmtree(host.base / "sys/bus/pci/devices" / GPU)
    result = release_gpus(host, options())
    assert not [action for action in result["actions"] if "device nodes" in action]
    assert load_records(host) == {}


def test_a_card_with_two_functions_in_one_group(tmp_path: Path) -> None:
    host = x86_card(tmp_path)
    host.with_udev()
    bind_gpus(host, options(CARD, consent=frozenset({AUDIO}), device_group="vfio"))
    assert owners(host, ("/dev/vfio/7", "/dev/vfio/devices/vfio1", "/dev/vfio/devices/vfio2")) == [OF_GROUP] * 3


def test_a_failure_after_the_group_was_changed_puts_the_owners_back(tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    host = grace_blackwell(tmp_path)
    both = ("0008:01:00.0", "0009:01:00.0")
    bind_gpus(host, options(*both, device_group="kvm"))
    before = host.manifest()
    give = nodes.give

    def failing(*arguments: Any) -> None:
        give(*arguments)
        if arguments[1].address == both[1]:
            raise PassthroughError("It broke.")

    monkeypatch.setattr(nodes, "give", failing)
    with pytest.raises(PassthroughError, match="It broke. All functions have their previous drivers again."):
        bind_gpus(host, options(*both, device_group="vfio"))
    assert host.manifest() == before


def test_udev_that_does_not_settle_is_no_reason_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = host_with(tmp_path, True)
    run = host.run

    def busy(argv: Any, **keywords: Any) -> Any:
        if "settle" in argv:
            raise CommandError("udevadm settle did not end within 35 seconds.")
        return run(argv, **keywords)

    monkeypatch.setattr(host, "run", busy)
    bind_gpus(host, options(GPU, device_group="vfio", persistent=False))
    assert owners(host) == [OF_GROUP, OF_GROUP]
