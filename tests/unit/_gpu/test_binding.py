# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Binding, end to end against a sysfs that answers as the kernel does: state -> steps -> state."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.host import CommandResult, Host
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu import ops, sysfs
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.driver import bind_gpus
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.giveback import release_gpus
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.options import DriverOptions, parse_options
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.persist import MODULES_LOAD, rule_path
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.record import load_record, load_records
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.variant import PlannedModule
from ansible_collections.nvgrace.passthrough.tests.unit._gpu.fake_sysfs import (
    KERNEL,
    VARIANT,
    FakeHost,
    grace_blackwell,
    grace_hopper,
    options,
    x86_card,
)

GPU = "0009:01:00.0"
CARD, AUDIO = "0000:41:00.0", "0000:41:00.1"


def test_grace_hopper_is_bound_and_stays_bound(tmp_path: Path) -> None:
    host = grace_hopper(tmp_path)
    host.with_udev()
    result = bind_gpus(host, options(GPU))
    assert result["actions"] == [
        f"run modprobe {VARIANT} (load the VFIO driver)",
        f"record {GPU} in /var/lib/nvgrace-passthrough",
        f"set driver_override of {GPU} to {VARIANT}",
        f"bind {GPU} to {VARIANT}",
        f"check that {GPU} is a VFIO device",
        f"write {rule_path(GPU)}",
        f"write {MODULES_LOAD}",
        "run udevadm control --reload (udev reads its rules again)",
    ]
    assert (host.driver(GPU), host.override(GPU)) == (VARIANT, VARIANT)
    assert result["devices"] == [{
        "address": GPU, "group": 11, "persistent": True, "device_group": None,
        "before": {"driver": None, "driver_override": None}, "after": {"driver": VARIANT, "driver_override": VARIANT}}]
    again = bind_gpus(host, options(GPU))
    assert (again["changed"], again["actions"]) == (False, [])


def test_rule_is_for_this_function_and_in_the_order_that_no_race_breaks(tmp_path: Path) -> None:
    host = grace_hopper(tmp_path)
    bind_gpus(host, options(GPU))
    comment, *rules = host.read(rule_path(GPU)).splitlines()
    assert comment.startswith("#")
    match = ['ACTION=="add"', 'SUBSYSTEM=="pci"', f'KERNEL=="{GPU}"', 'ATTR{vendor}=="0x10de"',
             'ATTR{device}=="0x2342"']
    assert [rule.split(", ") for rule in rules] == [
        ['ACTION!="remove"', *match[1:3], 'IMPORT{db}="NVGRACE_PASSTHROUGH_DRIVER"'],
        [*match, f'ATTR{{driver_override}}="{VARIANT}"'],
        [*match, 'ENV{NVGRACE_PASSTHROUGH_DRIVER}!="?*"', 'DRIVER=="?*"', f'DRIVER!="{VARIANT}"',
         f'ATTR{{driver/unbind}}="{GPU}"'],
        [*match, f'ENV{{NVGRACE_PASSTHROUGH_DRIVER}}="{VARIANT}"', f'ATTR{{subsystem/drivers_probe}}="{GPU}"',
         f'RUN{{builtin}}+="kmod load {VARIANT}"']]
    assert host.read(MODULES_LOAD).splitlines()[1:] == [VARIANT]


def test_check_mode_says_the_same_and_touches_nothing(tmp_path: Path) -> None:
    host = grace_hopper(tmp_path)
    before = host.manifest()
    predicted = bind_gpus(host, options(GPU, check_mode=True))
    assert host.manifest() == before
    assert host.log() == [f"modprobe --dry-run {VARIANT}"]
    done = bind_gpus(host, options(GPU))
    assert predicted["actions"] == done["actions"]
    assert predicted["diff"] == done["diff"]


def test_check_mode_before_the_module_is_installed(tmp_path: Path) -> None:
    host = grace_hopper(tmp_path)
    host.write(f"/lib/modules/{KERNEL}/modules.alias", "alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n")
    host.missing_modules.add(VARIANT)
    planned = (PlannedModule(VARIANT, VARIANT, ("vfio_pci:v000010DEd00002342sv*sd*bc*sc*i*",)),)
    result = bind_gpus(host, options(GPU, check_mode=True, planned=planned))
    assert result["devices"][0]["after"]["driver"] == VARIANT


def test_check_mode_notices_a_module_that_is_not_there(tmp_path: Path) -> None:
    host = grace_hopper(tmp_path)
    host.missing_modules.add(VARIANT)
    with pytest.raises(PassthroughError, match=f"The module {VARIANT} cannot be loaded"):
        bind_gpus(host, options(GPU, check_mode=True))


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_driver_that_does_not_exist(tmp_path: Path, check_mode: bool) -> None:
    host = grace_hopper(tmp_path)
    before = host.manifest()
    with pytest.raises(PassthroughError, match="The module nosuch cannot be loaded: .*FATAL: Module nosuch not found"):
        bind_gpus(host, options(GPU, driver="nosuch", check_mode=check_mode))
    assert host.manifest() == before


def test_a_module_without_a_pci_driver(tmp_path: Path) -> None:
    host = grace_hopper(tmp_path)
    host.run = lambda argv, **_keywords: CommandResult(tuple(argv), 0, "", "")  # type: ignore[method-assign]
    with pytest.raises(PassthroughError, match="The module loop is loaded and has no PCI driver"):
        bind_gpus(host, options(GPU, driver="loop"))


def test_all_functions_leave_before_the_first_is_bound(tmp_path: Path) -> None:
    host = x86_card(tmp_path)
    result = bind_gpus(host, options(CARD, consent=frozenset({AUDIO})))
    moves = [action.split()[0] + " " + action.split()[1] for action in result["actions"]
             if action.startswith(("unbind", "bind"))]
    assert moves == [f"unbind {CARD}", f"unbind {AUDIO}", f"bind {CARD}", f"bind {AUDIO}"]
    assert (host.driver(CARD), host.driver(AUDIO), host.driver("0000:40:01.0")) == ("vfio-pci", "vfio-pci", None)
    record = load_record(host, AUDIO)
    assert record is not None
    assert (record.previous_driver, record.companion_of) == ("snd_hda_intel", (CARD,))


def test_four_gpus_in_one_call(tmp_path: Path) -> None:
    host = grace_blackwell(tmp_path)
    addresses = [f"{domain}:01:00.0" for domain in ("0008", "0009", "0018", "0019")]
    result = bind_gpus(host, DriverOptions(gpus=[{"vendor_device": "10de:2941", "count": 4}]))
    assert [host.driver(address) for address in addresses] == [VARIANT] * 4
    assert host.log().count(f"modprobe {VARIANT}") == 1
    assert len(result["devices"]) == 4


def test_only_listed_gpus_are_touched(tmp_path: Path) -> None:
    host = grace_blackwell(tmp_path)
    bind_gpus(host, options("0018:01:00.0"))
    assert [host.driver(f"{domain}:01:00.0") for domain in ("0008", "0009", "0019")] == [None] * 3
    assert list(load_records(host)) == ["0018:01:00.0"]


def test_the_operators_driver_is_for_gpus_only(tmp_path: Path) -> None:
    host = x86_card(tmp_path)
    bind_gpus(host, options(CARD, driver="odd-module", consent=frozenset({AUDIO})))
    assert (host.driver(CARD), host.driver(AUDIO)) == ("Odd-Driver", "vfio-pci")


def test_persistent_false_takes_its_files_back(tmp_path: Path) -> None:
    host = grace_hopper(tmp_path)
    host.write(MODULES_LOAD, "loop\n")
    bind_gpus(host, options(GPU))
    assert host.has(rule_path(GPU))
    result = bind_gpus(host, options(GPU, persistent=False))
    assert result["changed"]
    sides = [json.loads(result["diff"][side])["devices"][0]["persistent"] for side in ("before", "after")]
    assert sides == [True, False]
    assert not host.has(rule_path(GPU))
    assert host.read(MODULES_LOAD) == "loop\n"
    assert host.driver(GPU) == VARIANT


def test_a_group_that_comes_with_the_first_bind(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.add_function(GPU)
    host.add_function("0009:01:00.1", device="22ba", class_code="040300", driver="snd_hda_intel")
    host.late_groups[GPU] = (9, [GPU, "0009:01:00.1"])
    result = bind_gpus(host, options(GPU, consent=frozenset({"0009:01:00.1"})))
    assert (host.driver(GPU), host.driver("0009:01:00.1")) == (VARIANT, "vfio-pci")
    assert f"check the new IOMMU group of {GPU}" in result["actions"]
    assert [device["group"] for device in result["devices"]] == [9, 9]


def refuse_consent(host: FakeHost) -> None:
    host.add_function("0009:01:00.1", device="22ba", class_code="040300", group=11)


def refuse_iommu(host: FakeHost) -> None:
    host.remove(f"/sys/bus/pci/devices/{GPU}/iommu_group")
    shutil.rmtree(host.base / "sys/class/iommu")
    shutil.rmtree(host.base / "sys/kernel/iommu_groups")


def refuse_isolation(host: FakeHost) -> None:
    host.write("/sys/kernel/iommu_groups/11/name", "vfio-noiommu\n")


def refuse_unsafe_interrupts(host: FakeHost) -> None:
    host.write("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y\n")


def refuse_unsafe_iommufd(host: FakeHost) -> None:
    host.write("/sys/module/iommufd/parameters/allow_unsafe_interrupts", "Y\n")


def refuse_made_up_groups(host: FakeHost) -> None:
    host.write("/proc/cmdline", "quiet pcie_acs_override=downstream,multifunction\n")


def refuse_noiommu(host: FakeHost) -> None:
    host.write("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n")


def refuse_holder(host: FakeHost) -> None:
    host.add_process(5, "dcgm", ["/dev/vfio/11"])


def refuse_module(host: FakeHost) -> None:
    host.missing_modules.add(VARIANT)


@pytest.mark.parametrize(("break_host", "sentence"), [
    (refuse_consent, "The IOMMU group 11 of 0009:01:00.0 also has 0009:01:00.1 (10de:22ba, audio)"),
    (refuse_iommu, "this host has no IOMMU"),
    (refuse_isolation, "is in the no-IOMMU group 11"),
    (refuse_unsafe_interrupts, "allow_unsafe_interrupts is on, so that VFIO takes devices that nothing isolates"),
    (refuse_unsafe_iommufd, "iommufd/parameters/allow_unsafe_interrupts is on, so that VFIO takes devices"),
    (refuse_made_up_groups, "pcie_acs_override is on, so that VFIO takes devices that nothing isolates"),
    (refuse_noiommu, "enable_unsafe_noiommu_mode is on, so that VFIO takes devices that nothing isolates"),
    (refuse_holder, "In use: 0009:01:00.0: dcgm (pid 5) holds /dev/vfio/11"),
    (refuse_module, "cannot be loaded"),
])
def test_refused_before_anything_is_changed(tmp_path: Path, break_host: Any, sentence: str) -> None:
    host = grace_hopper(tmp_path)
    break_host(host)
    before = host.manifest()
    with pytest.raises(PassthroughError) as caught:
        bind_gpus(host, options(GPU, timeout=1))
    assert sentence in caught.value.message
    assert host.manifest() == before


def test_without_an_iommu_the_first_gpu_is_named(tmp_path: Path) -> None:
    host = grace_blackwell(tmp_path)
    for address in host.listdir("/sys/bus/pci/devices"):
        host.remove(f"/sys/bus/pci/devices/{address}/iommu_group")
    shutil.rmtree(host.base / "sys/class/iommu")
    shutil.rmtree(host.base / "sys/kernel/iommu_groups")
    with pytest.raises(PassthroughError, match="^0008:01:00.0 is in no IOMMU group and this host has no IOMMU"):
        bind_gpus(host, options("0008:01:00.0", "0009:01:00.0"))


def test_waits_for_a_holder_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = grace_hopper(tmp_path)
    host.add_process(5, "dcgm", ["/dev/vfio/11"])
    monkeypatch.setattr("time.sleep", lambda _seconds: host.end_process(5))
    module = "ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.busy._POLL_SECONDS"
    monkeypatch.setattr(module, 0.01)
    assert bind_gpus(host, options(GPU, wait=True))["changed"]


def test_waiting_ends(tmp_path: Path) -> None:
    host = grace_hopper(tmp_path)
    host.add_process(5, "dcgm", ["/dev/vfio/11"])
    with pytest.raises(PassthroughError, match="In use after 1 seconds"):
        bind_gpus(host, options(GPU, wait=True, timeout=1))


def test_a_later_run_finishes_an_interrupted_one_and_keeps_the_first_record(tmp_path: Path) -> None:
    host = x86_card(tmp_path)
    bind_gpus(host, options(CARD, consent=frozenset({AUDIO})))
    host.write_sysfs(f"/sys/bus/pci/devices/{CARD}/driver/unbind", CARD)
    host.remove(rule_path(CARD))
    bind_gpus(host, options(CARD, consent=frozenset({AUDIO})))
    record = load_record(host, CARD)
    assert record is not None and record.previous_driver == "nouveau"
    assert (host.driver(CARD), host.has(rule_path(CARD))) == ("vfio-pci", True)


def test_another_card_in_the_slot_gets_a_record_of_its_own(tmp_path: Path) -> None:
    host = grace_hopper(tmp_path)
    bind_gpus(host, options(GPU))
    shutil.rmtree(host.base / "sys/bus/pci/devices" / GPU)
    host.add_function(GPU, device="2941", group=11, driver="nouveau")
    bind_gpus(host, options(GPU))
    record = load_record(host, GPU)
    assert record is not None
    assert (record.device, record.previous_driver) == ("2941", "nouveau")


@pytest.mark.parametrize(("change", "sentence"), [
    (lambda host: shutil.rmtree(host.base / "sys/bus/pci/devices" / GPU), "has left the host"),
    (lambda host: host.write(f"/sys/bus/pci/devices/{GPU}/device", "0x2941"), "is 10de:2941 now and was 10de:2342"),
    (lambda host: host.set_group(GPU, 12), "is in IOMMU group 12 now and was in 11"),
])
def test_a_device_that_changed_under_us_is_not_written_to(tmp_path: Path, change: Any, sentence: str) -> None:
    host = grace_hopper(tmp_path)
    identity = sysfs.read_identity(host, GPU)
    assert identity is not None
    change(host)
    for write in (lambda device: ops.set_override(host, device, "x"), lambda device: ops.unbind(host, device),
                  lambda device: ops.probe(host, device, "x"), lambda device: ops.bind(host, device, "x")):
        with pytest.raises(PassthroughError) as caught:
            write(ops.Device(identity, 11, 5))
        assert sentence in caught.value.message
    assert host.log() == []


@pytest.mark.parametrize(("params", "sentence"), [
    ({"driver": "../x"}, "is no driver name"),
    ({"driver": "a b"}, "is no driver name"),
    ({"driver": ""}, "is no driver name"),
    ({"timeout": 0}, "timeout is 0"),
    ({"group_consent": ["41:00.1"]}, "is not a PCI address"),
    ({"device_group": ""}, "is no name of a group"),
    ({"device_group": 'vfio", MODE="0666'}, "is no name of a group"),
    ({"device_group": "vfio\n"}, "is no name of a group"),
    ({"device_group": "990"}, "is no name of a group"),
])
def test_options_are_refused(params: dict[str, Any], sentence: str) -> None:
    base = {"gpus": None, "driver": "auto", "persistent": True, "group_consent": [], "in_use": "fail", "timeout": 5,
            "planned_modules": [], "device_group": None}
    with pytest.raises(PassthroughError) as caught:
        parse_options({**base, **params}, False)
    assert sentence in caught.value.message


def test_planned_modules_are_for_check_mode_only() -> None:
    params = {"gpus": None, "driver": "auto", "persistent": True, "group_consent": [], "in_use": "wait", "timeout": 5,
              "planned_modules": [{"module": "m", "driver": "d", "aliases": ["vfio_pci:v*"]}], "device_group": None}
    assert parse_options(params, False).planned == ()
    assert parse_options(params, True).planned == (PlannedModule("m", "d", ("vfio_pci:v*",)),)


def test_a_function_that_comes_into_the_group_meanwhile_needs_consent(tmp_path: Path,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    host = grace_hopper(tmp_path)
    list_identities = sysfs.list_identities

    def hot_add_after(here: FakeHost) -> Any:
        found = list_identities(here)
        host.add_function("0009:01:00.1", device="22ba", class_code="040300", group=11)
        return found

    monkeypatch.setattr(sysfs, "list_identities", hot_add_after)
    with pytest.raises(PassthroughError, match=r"also has 0009:01:00.1 \(10de:22ba, audio\)"):
        bind_gpus(host, options(GPU))
    assert host.log() == []


def test_a_gpu_that_was_added_later_is_left_alone_where_addresses_are_listed(tmp_path: Path) -> None:
    host = grace_hopper(tmp_path)
    bind_gpus(host, options(GPU))
    host.add_function("0019:01:00.0", group=12, driver="nouveau")
    host.hotplug("0019:01:00.0")
    assert not bind_gpus(host, options(GPU))["changed"]
    assert host.driver("0019:01:00.0") == "nouveau"
    bind_gpus(host, DriverOptions(gpus=[{"vendor_device": "10de:2342"}]))
    assert host.driver("0019:01:00.0") == VARIANT


@pytest.mark.parametrize(("device", "taken_by", "driver"), [
    ("2342", None, VARIANT),
    ("2941", None, None),
    ("2342", "nvidia", VARIANT),  # a driver that was loaded before takes it before udev hears of it
    ("2342", VARIANT, VARIANT),
    ("2941", "nvidia", "nvidia"),
])
def test_a_card_that_is_put_in_again_is_bound_by_udev_and_another_card_is_not(
        tmp_path: Path, device: str, taken_by: str | None, driver: str | None) -> None:
    host = grace_hopper(tmp_path)
    bind_gpus(host, options(GPU))
    shutil.rmtree(host.base / "sys/bus/pci/devices" / GPU)
    host.add_function(GPU, device=device, group=11, driver=taken_by)
    host.hotplug(GPU)
    assert host.driver(GPU) == driver


def test_a_driver_that_got_it_later_is_left_alone_by_udev(tmp_path: Path) -> None:
    """Events can be made again at any time (udevadm trigger --action=add), also while the GPU is in use."""
    host = grace_hopper(tmp_path)
    bind_gpus(host, options(GPU))
    host.hotplug(GPU)
    host.load("nvidia")
    host.write_sysfs(f"/sys/bus/pci/devices/{GPU}/driver/unbind", GPU)
    host.write_sysfs(f"/sys/bus/pci/devices/{GPU}/driver_override", "nvidia")
    host.write_sysfs("/sys/bus/pci/drivers_probe", GPU)
    assert host.driver(GPU) == "nvidia"
    host.hotplug(GPU)
    assert host.driver(GPU) == "nvidia"


@pytest.mark.parametrize("config", [b"\xff" * 4096, b"\xff" * 4 + bytes(4) + b"\xff" * 4 + bytes(52)],
                         ids=["all of it", "what no bridge or emulator answers for it"])
def test_a_card_that_has_fallen_off_the_bus_is_refused(tmp_path: Path, config: bytes) -> None:
    host = x86_card(tmp_path)
    host.write(f"/sys/bus/pci/devices/{AUDIO}/config", config)
    before = host.manifest()
    with pytest.raises(PassthroughError, match=f"{AUDIO} does not answer: .* as ones, .*nothing was changed"):
        bind_gpus(host, options(CARD, consent=frozenset({AUDIO})))
    assert host.manifest() == before


@pytest.mark.parametrize("config", [
    b"\xff" * 4 + bytes(60), b"\xff" * 11 + b"\x03" + b"\xff" * 52, b"\xde\x10" + b"\xff" * 62, b"\xff" * 63, b""],
    ids=["virtual function", "class", "vendor", "part of it", "not readable"])
def test_a_card_that_answers_something_is_bound(tmp_path: Path, config: bytes) -> None:
    host = grace_hopper(tmp_path)
    host.write(f"/sys/bus/pci/devices/{GPU}/config", config)
    bind_gpus(host, options(GPU))
    assert host.driver(GPU) == VARIANT


def test_a_bound_card_may_be_in_the_middle_of_a_reset(tmp_path: Path) -> None:
    host = grace_hopper(tmp_path)
    bind_gpus(host, options(GPU))
    host.write(f"/sys/bus/pci/devices/{GPU}/config", b"\xff" * 64)
    assert not bind_gpus(host, options(GPU))["changed"]


def with_nvidia(root: Path, answer: str) -> FakeHost:
    host = FakeHost(root)
    host.add_function(GPU, group=11, driver="nvidia")
    host.write("/usr/bin/nvidia-smi")
    (root / "usr/bin/nvidia-smi").chmod(0o755)
    host.answers["nvidia-smi"] = answer
    return host


def test_persistence_mode_counts_as_use(tmp_path: Path) -> None:
    host = with_nvidia(tmp_path, "Enabled\n")
    with pytest.raises(PassthroughError, match=r"persistence mode is on \(nvidia-smi --persistence-mode=0 ends it\)"):
        bind_gpus(host, options(GPU))
    assert host.driver(GPU) == "nvidia"
    assert host.log() == [f"nvidia-smi --id={GPU} --query-gpu=persistence_mode --format=csv,noheader"]


@pytest.mark.parametrize("answer", ["Disabled\n", "No devices were found\n", "hangs"])
def test_without_persistence_mode_or_an_answer_the_gpu_is_bound(tmp_path: Path, answer: str) -> None:
    host = with_nvidia(tmp_path, answer)
    bind_gpus(host, options(GPU))
    assert host.driver(GPU) == VARIANT


def test_a_setting_that_comes_with_the_driver_is_refused_before_anything_is_bound(tmp_path: Path) -> None:
    host = grace_hopper(tmp_path)
    original = host.run
    unsafe = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"

    def run(argv: Any, **more: Any) -> Any:
        if argv[:2] == ("modprobe", VARIANT):
            host.write(unsafe, "Y\n")
        return original(argv, **more)
    host.run = run  # type: ignore[method-assign]  # modprobe brings VFIO and its options along
    with pytest.raises(PassthroughError, match="and no GPU is bound"):
        bind_gpus(host, options(GPU))
    assert host.driver(GPU) is None


def test_settings_that_isolate(tmp_path: Path) -> None:
    host = grace_hopper(tmp_path)
    host.write("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "N\n")
    host.write("/sys/module/iommufd/parameters/allow_unsafe_interrupts", "N\n")
    host.write("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "N\n")
    assert bind_gpus(host, options(GPU))["warnings"] == []


def test_a_gpu_that_is_no_longer_listed_is_named_and_stays(tmp_path: Path) -> None:
    host = x86_card(tmp_path)
    host.add_function("0000:42:00.0", device="2331", group=21, driver="nouveau")
    both = bind_gpus(host, options(CARD, "0000:42:00.0", consent=frozenset({AUDIO})))
    assert both["warnings"] == []
    result = bind_gpus(host, options("0000:42:00.0"))
    assert not result["changed"] and host.driver(CARD) == "vfio-pci"
    (warning,) = result["warnings"]
    assert warning.startswith(f"Bound by an earlier run, and not among the GPUs of this one: {CARD}. ")
    release_gpus(host, options(CARD))
    assert bind_gpus(host, options("0000:42:00.0"))["warnings"] == []


@pytest.mark.parametrize(("driver", "written"), [("vfio-pci", b"vfio-pci"), (None, b"\n")])
def test_driver_override_is_lifted_with_a_newline(tmp_path: Path, driver: str | None, written: bytes) -> None:
    fake = grace_hopper(tmp_path)
    identity = sysfs.read_identity(fake, GPU)
    assert identity is not None
    fake.write(f"/sys/bus/pci/devices/{GPU}/driver_override")
    ops.set_override(Host(str(tmp_path)), ops.Device(identity, 11, 5), driver)
    assert fake.read_bytes(f"/sys/bus/pci/devices/{GPU}/driver_override") == written
