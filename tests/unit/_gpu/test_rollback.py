# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bind that fails half-way: everything is put back, and what cannot be is said."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu import ops, sysfs
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.child import ChildTimeoutError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.driver import bind_gpus
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.giveback import release_gpus
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.options import DriverOptions
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.persist import MODULES_LOAD, rule_path
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.record import load_record, load_records
from ansible_collections.nvgrace.passthrough.tests.unit._gpu.fake_sysfs import (
    FakeHost,
    options,
    x86_card,
)

GPU = "0009:01:00.0"
CARD, AUDIO = "0000:41:00.0", "0000:41:00.1"


def break_refusal(host: FakeHost) -> str:
    host.refuses.add("vfio-pci")
    return "bound to no driver and not to vfio-pci"


def break_other_driver(host: FakeHost) -> str:
    host.load("vfio_pci")
    host.write("/sys/bus/pci/drivers/plain/bind")
    host.link("/sys/module/vfio_pci/drivers/pci:plain", "x")
    host.remove("/sys/module/vfio_pci/drivers/pci:vfio-pci")
    return "is bound to plain, which is no VFIO driver"


def break_udev(host: FakeHost) -> str:
    host.with_udev()
    run = host.run

    def failing(argv: Any, **keywords: Any) -> Any:
        if "--reload" in argv and host.has(rule_path(CARD)):
            raise PassthroughError("udev is gone.")
        return run(argv, **keywords)

    host.run = failing  # type: ignore[method-assign]
    return "udev is gone."


def assert_only_modules_stay(error: PassthroughError, *modules: str) -> None:
    undone = "All functions have their previous drivers again."
    assert error.message.endswith(f"{undone} Loaded for this, and still loaded: {', '.join(modules)}." if modules
                                  else undone)
    loads = [f"run modprobe {name} (load the VFIO driver)" for name in modules]
    assert error.details["actions"][:len(loads)] == loads
    assert [action for action in error.details["actions"] if "modprobe" in action] == loads
    assert (error.details["remains"], error.details["changed"]) == ([], bool(modules))


def test_a_failure_says_nothing_of_a_module_that_was_loaded_before(tmp_path: Path) -> None:
    host = x86_card(tmp_path)
    host.run(("modprobe", "vfio_pci"))
    sentence = break_refusal(host)
    with pytest.raises(PassthroughError) as caught:
        bind_gpus(host, options(CARD, consent=frozenset({AUDIO})))
    assert sentence in caught.value.message
    assert_only_modules_stay(caught.value)


@pytest.mark.parametrize("break_host", [break_refusal, break_other_driver, break_udev])
def test_a_failure_half_way_is_rolled_back(tmp_path: Path, break_host: Any) -> None:
    host = x86_card(tmp_path)
    host.write(MODULES_LOAD, "loop\n")
    before = host.manifest()
    sentence = break_host(host)
    with pytest.raises(PassthroughError) as caught:
        bind_gpus(host, options(CARD, consent=frozenset({AUDIO})))
    assert sentence in caught.value.message
    assert "All functions have their previous drivers again." in caught.value.message
    assert_only_modules_stay(caught.value, *([] if break_host is break_other_driver else ["vfio_pci"]))
    assert host.manifest() == before


def test_a_failed_change_of_a_bound_device_keeps_its_files_and_its_record(tmp_path: Path) -> None:
    host = x86_card(tmp_path)
    first = options(CARD, consent=frozenset({AUDIO}))
    bind_gpus(host, first)
    before = host.manifest()
    host.refuses.add("Odd-Driver")
    with pytest.raises(PassthroughError, match="All functions have their previous drivers again"):
        bind_gpus(host, options(CARD, driver="odd_module", consent=frozenset({AUDIO})))
    assert host.manifest() == before


def test_files_that_were_changed_before_the_failure_are_put_back(tmp_path: Path) -> None:
    host = x86_card(tmp_path)
    host.with_udev()
    bind_gpus(host, options(CARD, consent=frozenset({AUDIO})))
    host.remove(rule_path(AUDIO))
    before = host.manifest()
    run = host.run

    def failing(argv: Any, **keywords: Any) -> Any:
        if "--reload" in argv:
            raise PassthroughError("udev is gone.")
        return run(argv, **keywords)

    host.run = failing  # type: ignore[method-assign]
    with pytest.raises(PassthroughError, match="Not everything could be put back: udev is gone."):
        bind_gpus(host, options(CARD, driver="odd_module", consent=frozenset({AUDIO})))
    assert host.manifest() == before


def test_a_file_that_cannot_be_put_back_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = x86_card(tmp_path)
    bind_gpus(host, options(CARD, consent=frozenset({AUDIO})))
    host.refuses.add("Odd-Driver")
    host.remove(MODULES_LOAD)

    def read_only(*_arguments: Any, **_keywords: Any) -> None:
        raise OSError(30, "Read-only file system")

    host.load("odd_module")
    save = "ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.rollback.save_record"
    monkeypatch.setattr(save, read_only)
    with pytest.raises(PassthroughError, match="could be put back: .*Read-only file system"):
        bind_gpus(host, options(CARD, driver="odd_module", consent=frozenset({AUDIO})))
    assert (host.driver(CARD), host.driver(AUDIO)) == ("vfio-pci", "vfio-pci")


def test_a_new_group_without_consent_is_undone_at_once(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.add_function(GPU)
    host.add_function("0009:02:00.0", device="1533", vendor="8086", class_code="020000")
    host.late_groups[GPU] = (9, [GPU, "0009:02:00.0"])
    before = host.manifest()
    with pytest.raises(PassthroughError, match=r"also has 0009:02:00.0 \(8086:1533, other\)"):
        bind_gpus(host, options(GPU))
    assert host.manifest() == before


def test_a_group_that_never_comes(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.add_function(GPU)
    with pytest.raises(PassthroughError, match="still in no IOMMU group after it was bound"):
        bind_gpus(host, options(GPU))
    assert host.driver(GPU) is None


def test_what_cannot_be_put_back_is_said(tmp_path: Path) -> None:
    host = x86_card(tmp_path)
    host.refuses |= {"vfio-pci", "nouveau"}
    with pytest.raises(PassthroughError) as caught:
        bind_gpus(host, options(CARD, consent=frozenset({AUDIO})))
    assert "Not everything could be put back" in caught.value.message
    assert (len(caught.value.details["remains"]), caught.value.details["changed"]) == (1, True)
    assert host.driver(AUDIO) == "snd_hda_intel"
    assert load_record(host, CARD) is not None
    assert load_record(host, AUDIO) is None


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), PassthroughError("The kernel refuses.")])
def test_who_did_not_get_its_driver_back_keeps_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                          error: Exception) -> None:
    host = x86_card(tmp_path)
    host.refuses.add("vfio-pci")

    def fail(*_arguments: Any) -> None:
        raise error

    restore = "ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.rollback._restore_driver"
    monkeypatch.setattr(restore, fail)
    with pytest.raises(PassthroughError, match="Not everything could be put back"):
        bind_gpus(host, options(CARD, consent=frozenset({AUDIO})))
    assert load_record(host, CARD) is not None


def test_an_unbind_that_blocks_ends_in_time(tmp_path: Path) -> None:
    host = x86_card(tmp_path)
    host.blocks.add("nouveau")
    with pytest.raises(PassthroughError, match="did not end within 1 seconds"):
        bind_gpus(host, options(CARD, consent=frozenset({AUDIO}), timeout=1))
    assert (host.driver(CARD), host.driver(AUDIO)) == ("nouveau", "snd_hda_intel")


def test_an_unbind_that_nothing_ends_keeps_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel goes on when its user is gone: the GPU has no driver then, and a release knows which it had."""
    host = x86_card(tmp_path)
    real = ops.run_in_child

    def stuck(function: Any, timeout: float, what: str) -> Any:
        if what.endswith(f"{CARD}/driver/unbind"):
            raise ChildTimeoutError(f"{what} is still blocked.", stuck_pid=4711)
        return real(function, timeout, what)

    monkeypatch.setattr(ops, "run_in_child", stuck)
    with pytest.raises(PassthroughError) as caught:
        bind_gpus(host, options(CARD, consent=frozenset({AUDIO})))
    assert caught.value.details["remains"] == [
        f"{CARD} loses its driver when process 4711 ends: give it back then."]
    assert caught.value.details["changed"] is True
    assert (host.driver(CARD), host.override(CARD)) == ("nouveau", "(null)")
    assert sorted(load_records(host)) == [CARD]
    monkeypatch.setattr(ops, "run_in_child", real)
    host._unbind(CARD)
    release_gpus(host, DriverOptions(gpus=None))
    assert (host.driver(CARD), load_records(host)) == ("nouveau", {})


def late_companion(tmp_path: Path) -> FakeHost:
    """A GPU of the host's own driver whose group, with an audio function in it, is known when it has been bound."""
    host = FakeHost(tmp_path)
    host.add_function(GPU, driver="nouveau")
    host.add_function("0009:01:00.1", device="22ba", class_code="040300", driver="snd_hda_intel")
    host.late_groups[GPU] = (9, [GPU, "0009:01:00.1"])
    return host


def test_a_member_of_the_new_group_that_is_in_use_undoes_the_first_bind(tmp_path: Path) -> None:
    host = late_companion(tmp_path)
    host.write("/sys/bus/pci/devices/0009:01:00.1/sound/card0/pcmC0D3p/dev", "116:3\n")
    host.write("/dev/snd/pcmC0D3p")
    host.add_process(77, "pipewire", ["/dev/snd/pcmC0D3p"])
    before = host.manifest()
    with pytest.raises(PassthroughError) as caught:
        bind_gpus(host, options(GPU, consent=frozenset({"0009:01:00.1"})))
    assert "pipewire" in caught.value.message
    assert_only_modules_stay(caught.value, "nvgrace_gpu_vfio_pci")
    assert host.manifest() == before


def test_a_member_of_the_new_group_that_is_refused_undoes_the_first_bind(tmp_path: Path) -> None:
    host = late_companion(tmp_path)
    host.refuses.add("vfio-pci")
    before = host.manifest()
    with pytest.raises(PassthroughError) as caught:
        bind_gpus(host, options(GPU, consent=frozenset({"0009:01:00.1"})))
    assert caught.value.message.count("All functions have their previous drivers again.") == 1
    assert_only_modules_stay(caught.value, "nvgrace_gpu_vfio_pci", "vfio_pci")
    assert host.manifest() == before


class VanishingHost(FakeHost):
    """The card's second function leaves the host during the first write to ``attribute`` of it."""

    attribute = ""

    def write_sysfs(self, path: str, value: str) -> None:
        if path.endswith(self.attribute) and (AUDIO in path or value == AUDIO):
            shutil.rmtree(self.base / "sys/bus/pci/devices" / AUDIO)
            raise OSError(errno.ENODEV, "No such device")
        super().write_sysfs(path, value)


@pytest.mark.parametrize("attribute", ["/driver/unbind", "/driver_override", "/drivers_probe"])
def test_a_function_that_vanishes_half_way_is_told_and_the_others_are_put_back(tmp_path: Path, attribute: str) -> None:
    host = x86_card(tmp_path)
    host.__class__ = VanishingHost
    host.attribute = attribute  # type: ignore[attr-defined]
    with pytest.raises(PassthroughError) as caught:
        bind_gpus(host, options(CARD, consent=frozenset({AUDIO})))
    assert f"{AUDIO} left the host while" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.details["remains"] == [
        f"The PCI function {AUDIO} is not there any more: look at the kernel log and rescan."]
    assert (host.driver(CARD), host.override(CARD)) == ("nouveau", "(null)")
    # what is recorded of the one that is gone goes when it is given back; of the other nothing is left
    assert sorted(load_records(host)) == [AUDIO]
    result = release_gpus(host, DriverOptions(gpus=None))
    assert "nothing is there now" in result["warnings"][0]
    assert load_records(host) == {} and not host.has("/etc/udev/rules.d")


def test_a_function_that_vanishes_while_its_driver_starts_is_told(tmp_path: Path) -> None:
    host = x86_card(tmp_path)

    def probe(address: str) -> None:
        shutil.rmtree(host.base / "sys/bus/pci/devices" / address)

    host._probe = probe  # type: ignore[method-assign]
    with pytest.raises(PassthroughError, match=f"{CARD} left the host while vfio-pci took it"):
        bind_gpus(host, options(CARD, consent=frozenset({AUDIO})))
    assert host.driver(AUDIO) == "snd_hda_intel"


def test_a_function_that_vanishes_between_two_reads_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = x86_card(tmp_path)
    read_function = sysfs.read_function

    def vanish_first(here: FakeHost, address: str) -> Any:
        if address == AUDIO:
            shutil.rmtree(host.base / "sys/bus/pci/devices" / AUDIO)
        return read_function(here, address)

    monkeypatch.setattr(sysfs, "read_function", vanish_first)
    before = host.driver(CARD)
    with pytest.raises(PassthroughError, match=f"The PCI function {AUDIO} is not there any more"):
        bind_gpus(host, options(CARD, consent=frozenset({AUDIO})))
    assert (host.driver(CARD), host.log()) == (before, [])


def test_an_unbind_that_does_nothing_is_told(tmp_path: Path) -> None:
    host = x86_card(tmp_path)
    host._unbind = lambda _address: None  # type: ignore[method-assign]
    with pytest.raises(PassthroughError, match=f"{CARD} is still bound to nouveau after its unbind"):
        bind_gpus(host, options(CARD, consent=frozenset({AUDIO})))
    assert (host.driver(CARD), host.driver(AUDIO)) == ("nouveau", "snd_hda_intel")


def test_a_driver_that_goes_before_it_can_be_given_back_is_told(tmp_path: Path) -> None:
    host = x86_card(tmp_path)
    unbind = host._unbind

    def unbind_and_unload(address: str) -> None:
        unbind(address)
        if address == AUDIO:
            shutil.rmtree(host.base / "sys/bus/pci/drivers/snd_hda_intel")
            raise OSError(errno.EIO, "Input/output error")

    host._unbind = unbind_and_unload  # type: ignore[method-assign]
    with pytest.raises(PassthroughError, match="The kernel refused .*Input/output error") as caught:
        bind_gpus(host, options(CARD, consent=frozenset({AUDIO})))
    assert caught.value.details["remains"] == [
        f"{AUDIO} cannot go back to snd_hda_intel, which is not loaded: load its module, then run again."]
    assert host.driver(CARD) == "nouveau"
