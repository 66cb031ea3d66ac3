# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""State and wish -> steps. No host is touched here."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.host import FileState
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host import files
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.entries import BootEntry
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.facts import Bootloader
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.planner import (
    plan_host,
    reboot_reasons,
    service_restarts,
    untested,
)
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.settings import HostSettings, HugepageWish
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.state import HugepageRecord, Record
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.until_boot import UntilBoot

GRUB = "/etc/default/grub.d/71-nvgrace-passthrough.cfg"
CMDLINE = "/etc/kernel/cmdline"
POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
INSTALL = "run kernel-install add 7.3.4+deb13-arm64 /boot/vmlinuz-7.3.4+deb13-arm64 (kernel arguments)"
ARGUMENTS = HostSettings(kernel_arguments=("a=1", "b"))
OPTION = HostSettings(modprobe_options=("options vfio_pci x=1",))
SD_BOOT = Bootloader("systemd-boot", "/etc/kernel")


def _sha(content):
    return hashlib.sha256(content).hexdigest()


def _actions(settings, state):
    plan = plan_host(settings, state)
    assert plan.changed is bool(plan.steps)
    return plan.actions()


def _with_file(state, path, content, ours=True):
    """The state in which a file has content, and whether we wrote it where there was none."""
    originals = {**state.originals, path: FileState(None)} if ours else state.originals
    return replace(state, files={**state.files, path: FileState(content)}, originals=originals)


@pytest.mark.parametrize(("settings", "actions"), [
    (HostSettings(), []),
    (ARGUMENTS, ["record the kernel arguments that are ours: a=1 b", f"write {GRUB}",
                 "run update-grub (kernel arguments)"]),
    (HostSettings(modprobe_blacklist=("nouveau",)),
     ["write /etc/modprobe.d/nvgrace-passthrough.conf",
      "run update-initramfs -u -k all (modprobe.d is part of the initramfs)"]),
    (HostSettings(modprobe_options=("vfio_pci disable_idle_d3=1",)),
     ["write /etc/modprobe.d/nvgrace-passthrough.conf",
      "run update-initramfs -u -k all (modprobe.d is part of the initramfs)"]),
    (HostSettings(modprobe_blacklist=("nouveau",), update_initramfs=False),
     ["write /etc/modprobe.d/nvgrace-passthrough.conf"]),
    (HostSettings(modules_load=("vfio_pci",)),
     ["write /etc/modules-load.d/nvgrace-passthrough-host.conf", "run modprobe vfio_pci (load it now too)"]),
    (HostSettings(hugepages=HugepageWish(2 << 20, 512)),
     ["write /etc/tmpfiles.d/nvgrace-passthrough-hugepages.conf", f"write 512 to {POOL}"]),
    (HostSettings(hugepages=HugepageWish(1 << 30, 2)), ["write /etc/tmpfiles.d/nvgrace-passthrough-hugepages.conf"]),
    (HostSettings(memlock="unlimited"),
     ["write /etc/security/limits.d/71-nvgrace-passthrough.conf",
      "write /etc/systemd/system/libvirtd.service.d/71-nvgrace-passthrough.conf",
      "run systemctl daemon-reload (limits of libvirt's units)"]),
    (HostSettings(hold_kernel=True), ["write /etc/apt/preferences.d/71-nvgrace-passthrough"]),
])
def test_from_a_bare_host(state, settings, actions):
    assert _actions(settings, state) == actions


def test_a_held_kernel_is_let_go(state):
    held = _with_file(state, files.PREFERENCES, files.preferences(HostSettings(hold_kernel=True)))
    assert _actions(HostSettings(hold_kernel=True), held) == []
    assert _actions(HostSettings(), held) == [f"restore {files.PREFERENCES}"]


def test_a_kernel_is_held_by_apt_only(state):
    with pytest.raises(PassthroughError, match="hold_kernel is carried out by apt, which this host does not have"):
        _actions(HostSettings(hold_kernel=True), replace(state, has_apt=False))
    assert _actions(HostSettings(), replace(state, has_apt=False)) == []


def test_without_initramfs_tools_no_image_is_made(state):
    actions = _actions(HostSettings(modprobe_blacklist=("nouveau",)), replace(state, initramfs=None))
    assert actions == ["write /etc/modprobe.d/nvgrace-passthrough.conf"]


def test_memlock_without_libvirt_is_only_for_sessions(state):
    actions = _actions(HostSettings(memlock="unlimited"), replace(state, libvirt_units=()))
    assert actions == ["write /etc/security/limits.d/71-nvgrace-passthrough.conf"]


def _grub_done(state):
    content = files.grub_dropin(ARGUMENTS.kernel_arguments)
    return replace(_with_file(state, GRUB, content), record=Record({"update-grub": _sha(content)}, ("a=1", "b")))


def test_converged_grub_host(state):
    assert _actions(ARGUMENTS, _grub_done(state)) == []


@pytest.mark.parametrize(("change", "actions"), [
    ({"record": Record({}, ("a=1", "b"))}, ["run update-grub (kernel arguments)"]),
    ({"record": Record({"update-grub": "old"}, ("a=1", "b"))}, ["run update-grub (kernel arguments)"]),
])
def test_run_that_died_before_its_generator_is_completed(state, change, actions):
    assert _actions(ARGUMENTS, replace(_grub_done(state), **change)) == actions


def test_file_that_another_hand_changed_is_written_again(state):
    changed = _with_file(_grub_done(state), GRUB, b"other")
    assert _actions(ARGUMENTS, changed) == [f"write {GRUB}"]


def test_setting_that_is_unset_is_given_back(state):
    assert _actions(HostSettings(), _grub_done(state)) == [
        f"restore {GRUB}", "run update-grub (kernel arguments)", "record the kernel arguments that are ours: none"]


def test_initramfs_is_made_again_when_its_inputs_go(state):
    conf = files.modprobe_conf(HostSettings(modprobe_blacklist=("nouveau",)))
    done = replace(_with_file(state, files.MODPROBE_CONF, conf), record=Record({"update-initramfs": _sha(conf)}))
    assert _actions(HostSettings(modprobe_blacklist=("nouveau",)), done) == []
    assert _actions(HostSettings(), done) == [
        f"restore {files.MODPROBE_CONF}", "run update-initramfs -u -k all (modprobe.d is part of the initramfs)"]
    assert _actions(HostSettings(update_initramfs=False), done) == [f"restore {files.MODPROBE_CONF}"]


def test_journaled_file_that_no_setting_names_any_more_is_given_back(state):
    gone = files.memlock_dropin("virtqemud.service")
    assert _actions(HostSettings(), _with_file(state, gone, b"x")) == [f"restore {gone}"]


def test_foreign_file_at_our_path_is_left_when_nothing_is_wanted(state):
    assert _actions(HostSettings(), _with_file(state, files.MODPROBE_CONF, b"theirs", ours=False)) == []


@pytest.mark.parametrize(("kind", "words"), [
    ("none", "no boot loader is installed here, so add them where this kernel is started"),
    ("unknown", "the boot loader of this host is not known"),
])
def test_loader_that_cannot_be_configured(state, kind, words):
    other = replace(state, bootloader=Bootloader(kind, None))
    with pytest.raises(PassthroughError, match="The kernel runs without a=1 b, and ") as caught:
        plan_host(ARGUMENTS, other)
    assert words in caught.value.message
    assert caught.value.details == {"missing_kernel_arguments": ["a=1", "b"]}
    assert _actions(ARGUMENTS, replace(other, cmdline=("a=1", "b"))) == []
    assert _actions(HostSettings(), other) == []


def test_loader_that_went_away_leaves_its_files_to_give_back(state):
    gone = replace(_grub_done(state), bootloader=Bootloader("none", None))
    assert _actions(HostSettings(), gone) == [f"restore {GRUB}", "record that update-grub is gone",
                                              "record the kernel arguments that are ours: none"]


def test_systemd_boot_adds_to_the_line_that_kernel_install_uses(state):
    plan = plan_host(ARGUMENTS, replace(state, bootloader=SD_BOOT))
    assert plan.actions() == ["record the kernel arguments that are ours: a=1 b", f"write {CMDLINE}", INSTALL]
    assert plan.after[CMDLINE] == ["root=/dev/vda quiet a=1 b"]


def _sd_boot_done(state, line=b"root=/dev/vda quiet a=1 b\n", original=None):
    done = replace(state, bootloader=SD_BOOT, loader_cmdline=tuple(line.decode().split()),
                   record=Record({"kernel-install": _sha(line)}, ("a=1", "b")))
    return replace(done, files={**state.files, CMDLINE: FileState(line)}, originals={CMDLINE: FileState(original)})


def test_converged_systemd_boot_host(state):
    assert _actions(ARGUMENTS, _sd_boot_done(state)) == []


def test_argument_that_the_operator_already_set_does_not_become_ours(state):
    found = replace(state, bootloader=SD_BOOT, loader_cmdline=("a=1",))
    plan = plan_host(ARGUMENTS, found)
    assert plan.actions()[0] == "record the kernel arguments that are ours: b"
    assert plan.after[CMDLINE] == ["a=1 b"]


def test_shrinking_list_keeps_old_arguments_ours_until_the_entries_are_made(state):
    plan = plan_host(HostSettings(kernel_arguments=("b", "c")), _sd_boot_done(state))
    assert plan.actions() == ["record the kernel arguments that are ours: a=1 b c", f"write {CMDLINE}", INSTALL,
                              "record the kernel arguments that are ours: b c"]
    assert plan.after[CMDLINE] == ["root=/dev/vda quiet b c"]


def test_entries_are_made_without_our_arguments_before_the_file_goes(state):
    plan = plan_host(HostSettings(), _sd_boot_done(state))
    assert plan.actions() == [f"write {CMDLINE}", INSTALL, f"restore {CMDLINE}",
                              "record the kernel arguments that are ours: none"]
    assert plan.steps[0].content == b"root=/dev/vda quiet\n"
    assert CMDLINE not in plan.after


def test_giving_back_that_died_before_the_last_step_is_completed(state):
    done = replace(_sd_boot_done(state, b"root=/dev/vda quiet\n", b"root=/dev/vda  quiet\n"), record=Record({}, ("b",)))
    plan = plan_host(HostSettings(), done)
    assert plan.actions() == [f"restore {CMDLINE}", "record the kernel arguments that are ours: none"]
    assert plan.after[CMDLINE] == ["root=/dev/vda  quiet"]


def test_edit_by_another_hand_reaches_the_entries(state):
    edited = replace(_sd_boot_done(state, b"root=/dev/vdb a=1 b\n"),
                     record=Record({"kernel-install": "x"}, ("a=1", "b")))
    assert _actions(ARGUMENTS, edited) == [INSTALL]


def test_systemd_boot_without_a_kernel_image(state):
    with pytest.raises(PassthroughError, match="No kernel image was found"):
        plan_host(ARGUMENTS, replace(state, bootloader=SD_BOOT, kernels=()))


WISH = HostSettings(hugepages=HugepageWish(2 << 20, 512))
CONF = "/etc/tmpfiles.d/nvgrace-passthrough-hugepages.conf"


@pytest.mark.parametrize(("pages", "record", "actions"), [
    (512, HugepageRecord(2 << 20, 3, 512, "boot-1"), []),
    (200, HugepageRecord(2 << 20, 3, 512, "boot-1"), []),
    (200, HugepageRecord(2 << 20, 3, 512, "boot-0"), [f"write 512 to {POOL}"]),
    (200, HugepageRecord(2 << 20, 3, 256, "boot-1"), [f"write 512 to {POOL}"]),
    (0, HugepageRecord(1 << 30, 3, 4, "boot-1"),
     ["write 3 to /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", f"write 512 to {POOL}"]),
])
def test_hugepages_are_tried_once_a_boot(state, pages, record, actions):
    content = files.tmpfiles_conf(WISH)
    found = replace(_with_file(state, CONF, content), hugepages={2 << 20: pages, 1 << 30: 4},
                    record=Record({}, (), record))
    assert _actions(WISH, found) == actions


def test_hugepages_are_given_back(state):
    found = replace(state, hugepages={2 << 20: 512}, record=Record({}, (), HugepageRecord(2 << 20, 3, 512, "boot-0")))
    plan = plan_host(HostSettings(), found)
    assert plan.actions() == [f"write 3 to {POOL}"]
    assert (plan.before[POOL], plan.after[POOL]) == (512, 3)


@pytest.mark.parametrize(("sizes", "words"), [({4096: 0, 2 << 20: 0, 1 << 30: 0}, "4 KiB, 2 MiB, 1 GiB"), ({}, "none")])
def test_hugepage_size_that_the_kernel_has_not(state, sizes, words):
    with pytest.raises(PassthroughError, match=f"no hugepages of 512 MiB; it has: {words}\\."):
        plan_host(HostSettings(hugepages=HugepageWish(512 << 20, 1)), replace(state, hugepages=sizes))


def test_diff_shows_files_pools_and_modules(state):
    plan = plan_host(replace(WISH, modules_load=("vfio-pci",)), state)
    assert plan.before == {POOL: 0, POOL.replace("2048", "1048576"): 2, "modules": []}
    assert plan.after[CONF][-1] == f"w {POOL} - - - - 512"
    assert (plan.after[POOL], plan.after["modules"]) == (512, ["vfio-pci"])


def test_diff_shows_the_arguments_of_each_entry_of_the_boot_menu(state):
    found = replace(state, bootloader=Bootloader("bls", "/boot/loader/entries"), boot_entries=(
        BootEntry("/boot/vmlinuz-1", ("quiet", "b")), BootEntry("/boot/vmlinuz-2", ("quiet", "a=1", "b"))))
    plan = plan_host(ARGUMENTS, found)
    assert plan.before["arguments of /boot/vmlinuz-1"] == ["quiet", "b"]
    assert plan.after["arguments of /boot/vmlinuz-1"] == ["quiet", "b", "a=1"]
    assert plan.before["arguments of /boot/vmlinuz-2"] == plan.after["arguments of /boot/vmlinuz-2"]


def test_diff_of_a_converged_host_is_empty(state):
    found = replace(_with_file(state, CONF, files.tmpfiles_conf(WISH)), hugepages={2 << 20: 100},
                    record=Record({}, (), HugepageRecord(2 << 20, 0, 512, "boot-1")))
    plan = plan_host(WISH, found)
    assert plan.before == plan.after


@pytest.mark.parametrize(("settings", "before", "now", "reasons"), [
    (ARGUMENTS, {}, {"cmdline": ("b",)}, ["The kernel argument a=1 is not in effect yet."]),
    (ARGUMENTS, {}, {"cmdline": ("b", "a=1")}, []),
    (HostSettings(), {"cmdline": ("a=1",), "record": Record({}, ("a=1", "c"))}, {},
     ["The kernel argument a=1 is in effect until then."]),
    (HostSettings(), {"cmdline": ("a=1",), "until_boot": UntilBoot(("a=1", "c"))}, {},
     ["The kernel argument a=1 is in effect until then."]),
    (ARGUMENTS, {"cmdline": ("a=1",), "until_boot": UntilBoot(("a=1",))}, {"cmdline": ("a=1", "b")}, []),
    (OPTION, {}, {}, ["The line 'options vfio_pci x=1' of modprobe.d is not in effect yet, because its module was "
                      "loaded before."]),
    (OPTION, {"in_effect": frozenset(OPTION.modprobe_options)}, {}, []),
    (OPTION, {"files": {files.MODPROBE_CONF: FileState(b"options vfio_pci x=1\n")}}, {}, []),
    (HostSettings(), {"until_boot": UntilBoot((), OPTION.modprobe_options)}, {}, []),
    (HostSettings(modprobe_blacklist=("nouveau", "nova_core")), {}, {"loaded": {"nouveau"}},
     ["The blacklisted module nouveau is still loaded."]),
    (WISH, {}, {"record": Record({}, (), HugepageRecord(2 << 20, 0, 512, "boot-1")), "hugepages": {2 << 20: 100}},
     ["Only 100 of 512 hugepages of 2 MiB could be reserved while memory is in use."]),
    (WISH, {}, {"hugepages": {2 << 20: 0}}, []),
])
def test_reboot_reasons(state, settings, before, now, reasons):
    loaded = now.pop("loaded", None) if "loaded" in now else None
    present = replace(state, **now)
    if loaded is not None:
        present = replace(present, modules=replace(state.modules, loaded=frozenset(loaded)))
    assert reboot_reasons(settings, replace(state, **before), present) == reasons


@pytest.mark.parametrize(("memlock", "running", "units"), [
    (None, {"libvirtd.service": 1}, []),
    ("unlimited", {"libvirtd.service": 8}, ["libvirtd.service"]),
    ("unlimited", {"libvirtd.service": -1}, []),
    ("4096", {"virtqemud.service": 4096, "libvirtd.service": 8}, ["libvirtd.service"]),
    ("4096", {}, []),
])
def test_service_restarts(state, memlock, running, units):
    assert service_restarts(HostSettings(memlock=memlock), replace(state, running_memlock=running)) == units


@pytest.mark.parametrize(("settings", "ways"), [
    (HostSettings(modprobe_options=("vfio_pci disable_idle_d3=1",)), ["initramfs images by dracut"]),
    (HostSettings(modprobe_blacklist=("nouveau",), update_initramfs=False), []),
    (HostSettings(memlock="unlimited"), []),
])
def test_what_was_never_run_is_named_only_where_it_is_gone_through(state, settings, ways):
    assert untested(settings, replace(state, initramfs="dracut")) == ways


def test_giving_back_an_initramfs_by_dracut_was_never_run_either(state):
    found = replace(_with_file(state, files.MODPROBE_CONF, b"x"), initramfs="dracut")
    assert untested(HostSettings(), found) == ["initramfs images by dracut"]
