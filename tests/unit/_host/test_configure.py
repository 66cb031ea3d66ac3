# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""host_config from end to end on a host in a directory: apply, again, check mode, interruption, give back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.plan import apply_step
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host import configure
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.configure import configure_host
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.settings import HostSettings, HugepageWish
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.until_boot import PATH

ALL = HostSettings(
    kernel_arguments=("init_on_alloc=0", "numa_balancing=disable"), modprobe_blacklist=("nouveau",),
    modprobe_options=("options vfio_pci disable_idle_d3=1",), modules_load=("vfio-pci", "vfio_iommu_type1"),
    hugepages=HugepageWish(2 << 20, 8), memlock="unlimited")
POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
SD_BOOT = "/boot/efi/loader/loader.conf"
ENTRIES = "/boot/loader/entries"
FAKE_GRUBBY = Path(__file__).parent / "fake_grubby.py"


def _red_hat(tree, kernelopts=False):
    """A host with grubby. On RHEL 8 an entry takes its arguments from the loader's environment."""
    tree.write("/etc/default/grub", 'GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX="rd.lvm.lv=rhel/root quiet"\n')
    if kernelopts:
        tree.write("/boot/grub2/grubenv", "kernelopts=root=/dev/vda ro quiet\n")
    else:
        tree.write("/etc/kernel/cmdline", "root=/dev/vda  ro quiet\n")
    options = "$kernelopts" if kernelopts else "root=/dev/vda   ro quiet"
    for name, release in (("m-4.18", "4.18.0"), ("m-0-rescue", "0-rescue")):
        tree.write(f"{ENTRIES}/{name}.conf", f"title RHEL\nlinux /vmlinuz-{release}\noptions {options}\n")
    tree.program("grubby", f'exec {sys.executable} {FAKE_GRUBBY} {tree.root} "$@"')


@pytest.fixture(params=["grub", "systemd-boot", "bls", "bls-kernelopts"])
def server(request, grace):
    """A host with each boot loader; its program puts the arguments where a boot would take them."""
    grace.program("systemctl")
    images = f"{grace.root}/boot/images-have-nouveau"
    grace.program("update-initramfs", f"rm -f {images}; ! grep -qs nouveau {grace.root}/etc/modprobe.d/nvgrace* ||"
                  f" : > {images}")
    grace.program("modprobe", f'echo "vfio_iommu_type1 1 0 - Live 0x0" >> {grace.root}/proc/modules')
    grace.write("/boot/initrd.img-7.3.4+deb13-arm64")
    grace.write("/boot/vmlinuz-7.3.4+deb13-arm64")
    grace.write("/usr/lib/systemd/system/libvirtd.service")
    if request.param == "grub":
        grace.write("/boot/grub/grub.cfg", "")
        grace.program("update-grub", f"cat {grace.root}/etc/default/grub.d/*.cfg 2>/dev/null | tr -d '\"'"
                      f" > {grace.root}/boot/grub/grub.cfg")
    elif request.param.startswith("bls"):
        _red_hat(grace, request.param.endswith("kernelopts"))
    else:
        grace.write(SD_BOOT)
        grace.program("kernel-install", f"cat {grace.root}/etc/kernel/cmdline > {grace.root}/boot/efi/entry")
        grace.write("/boot/efi/entry", "root=/dev/vda rw quiet\n")
    return grace


def _entries(tree):
    """The text in which a boot finds the arguments of the default entry."""
    paths = ("/boot/grub/grub.cfg", "/boot/efi/entry", "/boot/grub2/grubenv", f"{ENTRIES}/m-4.18.conf")
    return tree.read(next(path for path in paths if tree.has(path)))


def _changing_calls(tree):
    """What was run, without the questions."""
    return [call for call in tree.calls() if call != "grubby --info=ALL"]


def test_a_reboot_for_what_was_given_back_stays_due_until_it_has_been(server):
    """Also where the run that took the argument out was not allowed to reboot; and it leaves nothing behind a boot."""
    configure_host(server.host, ALL, False)
    server.write("/proc/cmdline", "root=/dev/vda rw quiet init_on_alloc=0 numa_balancing=disable\n")
    due = ["The kernel argument init_on_alloc=0 is in effect until then.",
           "The kernel argument numa_balancing=disable is in effect until then."]
    assert configure_host(server.host, HostSettings(), True)["reboot_reasons"] == due
    assert configure_host(server.host, HostSettings(), False)["reboot_reasons"] == due
    again = configure_host(server.host, HostSettings(), False)
    assert (again["changed"], again["reboot_required"], again["reboot_reasons"]) == (False, True, due)
    wanted_again = configure_host(server.host, HostSettings(kernel_arguments=("init_on_alloc=0",)), False)
    assert wanted_again["reboot_reasons"] == due[1:]
    configure_host(server.host, HostSettings(), False)
    server.host.remove(PATH)  # /run is empty after a boot
    server.write("/proc/cmdline", "root=/dev/vda rw quiet\n")
    assert configure_host(server.host, HostSettings(), False)["reboot_required"] is False


OPTION_DUE = "The line 'options vfio_pci disable_idle_d3=1' of modprobe.d is not in effect yet, because its module " \
             "was loaded before."


@pytest.mark.parametrize(("shown", "due"), [(None, False), ("Y\n", False), ("N\n", True)])
def test_an_option_of_a_module_that_is_loaded_comes_with_a_reboot(server, shown, due):
    if shown:
        server.write("/sys/module/vfio_pci/parameters/disable_idle_d3", shown)
    settings = HostSettings(modprobe_options=ALL.modprobe_options)
    reasons = [OPTION_DUE] if due else []
    assert configure_host(server.host, settings, True)["reboot_reasons"] == reasons
    assert not server.has(PATH)
    assert configure_host(server.host, settings, False)["reboot_reasons"] == reasons
    again = configure_host(server.host, settings, False)
    assert (again["changed"], again["reboot_reasons"]) == (False, reasons)
    server.write("/sys/module/vfio_pci/parameters/disable_idle_d3", "1\n")  # loaded anew by hand
    assert configure_host(server.host, settings, False)["reboot_reasons"] == []
    configure_host(server.host, HostSettings(), False)
    assert not server.has(PATH)


def test_apply_again_and_give_back(server):
    before = server.snapshot()
    first = configure_host(server.host, ALL, False)
    assert first["changed"]
    assert "init_on_alloc=0 numa_balancing=disable" in _entries(server)
    assert server.read("/etc/modprobe.d/nvgrace-passthrough.conf").endswith(
        "blacklist nouveau\noptions vfio_pci disable_idle_d3=1\n")
    assert server.read(POOL) == "8"
    assert [call for call in server.calls() if call.startswith("modprobe")] == ["modprobe vfio_iommu_type1"]
    assert first["reboot_reasons"] == ["The kernel argument init_on_alloc=0 is not in effect yet.",
                                       "The kernel argument numa_balancing=disable is not in effect yet."]

    calls = _changing_calls(server)
    second = configure_host(server.host, ALL, False)
    assert (second["changed"], second["actions"], _changing_calls(server)) == (False, [], calls)
    assert second["diff"]["before"] == second["diff"]["after"]
    assert second["reboot_required"] is True

    third = configure_host(server.host, HostSettings(), False)
    assert third["changed"]
    assert server.snapshot() == before
    assert server.read(POOL) == "0"
    assert configure_host(server.host, HostSettings(), False)["changed"] is False


def test_check_mode_tells_the_same_and_changes_nothing(server):
    before = server.snapshot()
    predicted = configure_host(server.host, ALL, True)
    assert (server.snapshot(), _changing_calls(server), server.read(POOL)) == (before, [], "0")
    done = configure_host(server.host, ALL, False)
    assert predicted == done


@pytest.mark.parametrize("step", range(16))
def test_way_there_that_died_before_a_step_is_completed(server, monkeypatch, step):
    before = server.snapshot()
    _apply_first_steps(server, monkeypatch, ALL, step)
    configure_host(server.host, ALL, False)
    assert configure_host(server.host, ALL, False)["changed"] is False
    assert "init_on_alloc=0 numa_balancing=disable" in _entries(server)
    assert server.has("/boot/images-have-nouveau")
    configure_host(server.host, HostSettings(), False)
    assert server.snapshot() == before


@pytest.mark.parametrize("step", range(16))
def test_way_back_that_died_before_a_step_is_completed(server, monkeypatch, step):
    before = server.snapshot()
    configure_host(server.host, ALL, False)
    _apply_first_steps(server, monkeypatch, HostSettings(), step)
    configure_host(server.host, HostSettings(), False)
    assert server.snapshot() == before


def _apply_first_steps(tree, monkeypatch, settings, limit):
    """Applies the plan's first steps only, as a run that is killed before the next one does."""
    def partly(host, plan, journal):
        for step in plan.steps[:limit]:
            apply_step(host, step, journal)
        return []

    with monkeypatch.context() as patch:
        patch.setattr(configure, "apply_plan", partly)
        configure_host(tree.host, settings, False)


def test_no_plan_is_longer_than_the_interruptions_above(server):
    assert len(configure_host(server.host, ALL, False)["actions"]) <= 16
    assert len(configure_host(server.host, HostSettings(), False)["actions"]) <= 16


def test_existing_files_come_back_byte_for_byte(server):
    path = server.root / "etc/modprobe.d/nvgrace-passthrough.conf"
    path.write_bytes(b"# theirs \xff\r\n")
    path.chmod(0o640)
    configure_host(server.host, ALL, False)
    configure_host(server.host, HostSettings(), False)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"# theirs \xff\r\n", 0o640)


def test_failing_generator_says_so_and_is_run_again(server):
    script = server.read("/usr/sbin/update-initramfs")
    server.program("update-initramfs", "echo no space left >&2; exit 1")
    with pytest.raises(PassthroughError, match="-u -k all failed with status 1: no space left") as caught:
        configure_host(server.host, ALL, False)
    assert "write /etc/modprobe.d/nvgrace-passthrough.conf" in caught.value.details["actions"]
    (server.root / "usr/sbin/update-initramfs").write_text(script)
    actions = configure_host(server.host, ALL, False)["actions"]
    assert "run update-initramfs -u -k all (modprobe.d is part of the initramfs)" in actions


def test_settings_change_one_by_one(server):
    configure_host(server.host, ALL, False)
    smaller = HostSettings(kernel_arguments=("init_on_alloc=0",), modprobe_blacklist=("nouveau",))
    configure_host(server.host, smaller, False)
    assert "numa_balancing" not in _entries(server)
    assert "init_on_alloc=0" in _entries(server)
    assert not server.has("/etc/security/limits.d/71-nvgrace-passthrough.conf")
    assert server.read(POOL) == "0"


def test_refusal_changes_nothing(grace):
    before = grace.snapshot()
    with pytest.raises(PassthroughError, match="no boot loader is installed here"):
        configure_host(grace.host, ALL, False)
    assert (grace.snapshot(), grace.calls()) == (before, [])


def test_what_was_never_run_is_said(server):
    result = configure_host(server.host, ALL, True)
    assert result["untested"] == (["boot loader entries by grubby"] if result["bootloader"] == "bls" else [])


def test_red_hats_files_for_new_kernels_get_the_arguments(grace):
    _red_hat(grace)
    configure_host(grace.host, HostSettings(kernel_arguments=("a=1",)), False)
    assert "quiet a=1" in grace.read("/etc/default/grub")
    assert grace.read("/etc/kernel/cmdline") == "root=/dev/vda ro quiet a=1\n"
    assert grace.calls().count("grubby --update-kernel=ALL --args=a=1") == 1


def test_kernel_that_came_and_kernel_that_went_meanwhile(grace):
    _red_hat(grace)
    configure_host(grace.host, HostSettings(kernel_arguments=("a=1",)), False)
    grace.write(f"{ENTRIES}/m-5.conf", "title RHEL\nlinux /vmlinuz-5\noptions root=/dev/vda ro quiet a=1\n")
    (grace.root / "boot/loader/entries/m-4.18.conf").unlink()
    assert configure_host(grace.host, HostSettings(kernel_arguments=("a=1",)), False)["changed"] is False
    actions = configure_host(grace.host, HostSettings(), False)["actions"]
    assert f"leave {ENTRIES}/m-4.18.conf as it is (its kernel is gone)" in actions
    assert not grace.has(f"{ENTRIES}/m-4.18.conf")
    assert "options root=/dev/vda ro quiet\n" in grace.read(f"{ENTRIES}/m-5.conf")
    assert configure_host(grace.host, HostSettings(), False)["changed"] is False
    assert not grace.has("/var/lib/nvgrace-passthrough")


def test_edits_of_other_hands_survive_the_way_back(grace):
    _red_hat(grace)
    configure_host(grace.host, HostSettings(kernel_arguments=("a=1",)), False)
    for path in ("/etc/default/grub", "/etc/kernel/cmdline", f"{ENTRIES}/m-4.18.conf"):
        grace.write(path, grace.read(path).replace("quiet", "debug"))
    configure_host(grace.host, HostSettings(), False)
    assert 'GRUB_CMDLINE_LINUX="rd.lvm.lv=rhel/root debug"\n' in grace.read("/etc/default/grub")
    assert grace.read("/etc/kernel/cmdline") == "root=/dev/vda ro debug\n"
    assert "options root=/dev/vda ro debug\n" in grace.read(f"{ENTRIES}/m-4.18.conf")
    assert configure_host(grace.host, HostSettings(), False)["changed"] is False


def test_value_that_grubby_replaced_comes_back(grace):
    _red_hat(grace)
    path = f"{ENTRIES}/m-4.18.conf"
    grace.write(path, grace.read(path).replace("quiet", "a=0"))
    before = grace.snapshot()
    configure_host(grace.host, HostSettings(kernel_arguments=("a=1",)), False)
    assert "a=0" not in grace.read(path)
    configure_host(grace.host, HostSettings(), False)
    assert grace.snapshot() == before


def test_argument_that_all_of_red_hats_lines_have_is_not_ours(grace):
    _red_hat(grace)
    before = grace.snapshot()
    assert configure_host(grace.host, HostSettings(kernel_arguments=("quiet",)), False)["changed"] is False
    assert grace.snapshot() == before


@pytest.mark.parametrize(("wanted", "entry", "words"), [
    (("hugepagesz=2M", "hugepagesz=1G"), "quiet", "hugepagesz is given more than once"),
    (("console=ttyS0",), "console=tty0 console=ttyS1", "console=tty0 console=ttyS1"),
])
def test_names_that_grubby_would_drop_are_refused(grace, wanted, entry, words):
    _red_hat(grace)
    path = f"{ENTRIES}/m-4.18.conf"
    grace.write(path, grace.read(path).replace("quiet", entry))
    before = grace.snapshot()
    with pytest.raises(PassthroughError, match=words):
        configure_host(grace.host, HostSettings(kernel_arguments=wanted), False)
    assert grace.snapshot() == before


def test_grubby_without_kernels_is_refused(grace):
    _red_hat(grace)
    grace.program("grubby", "echo nothing")
    with pytest.raises(PassthroughError, match="grubby lists no kernel"):
        configure_host(grace.host, HostSettings(kernel_arguments=("a",)), False)


@pytest.mark.parametrize("wanted", [("a=1",), ()])
def test_grubby_that_does_nothing_is_found_out(grace, wanted):
    _red_hat(grace)
    if not wanted:
        configure_host(grace.host, HostSettings(kernel_arguments=("a=1",)), False)
    grace.program("grubby", f'test "$1" = --info=ALL && exec {sys.executable} {FAKE_GRUBBY} {grace.root} "$@" || :')
    with pytest.raises(PassthroughError, match="does not have a=1" if wanted else "still has a=1"):
        configure_host(grace.host, HostSettings(kernel_arguments=wanted), False)


def test_loader_that_is_gone_leaves_its_files_to_be_given_back(grace):
    _red_hat(grace)
    before = grace.snapshot()
    configure_host(grace.host, HostSettings(kernel_arguments=("a=1",)), False)
    (grace.root / "usr/sbin/grubby").unlink()
    (grace.root / "boot/loader/entries/m-0-rescue.conf").unlink()
    configure_host(grace.host, HostSettings(), False)
    before.pop("boot/loader/entries/m-0-rescue.conf")
    assert grace.snapshot() == {path: content for path, content in before.items() if "nvgrace" not in path}


def test_argument_that_update_grub_loses_is_found_out(grace):
    grace.write("/boot/grub/grub.cfg", "")
    grace.program("update-grub")
    with pytest.raises(PassthroughError, match=r"does not have a=1: a file that is read after /etc/default/grub\.d"):
        configure_host(grace.host, HostSettings(kernel_arguments=("a=1",)), False)
    grace.program("update-grub", f"echo linux /vmlinuz a=1 > {grace.root}/boot/grub/grub.cfg")
    assert configure_host(grace.host, HostSettings(kernel_arguments=("a=1",)), False)["actions"] == [
        "run update-grub (kernel arguments)"]


@pytest.mark.parametrize(("name", "fails"), [("m-7.3.4+deb13-arm64.conf", True), ("m-other.conf", False)])
def test_argument_that_kernel_install_loses_is_found_out(grace, name, fails):
    grace.write(SD_BOOT)
    grace.write("/boot/vmlinuz-7.3.4+deb13-arm64")
    grace.write(f"/boot/efi/loader/entries/{name}", "options root=/dev/vda\n")
    grace.program("kernel-install")
    if fails:
        with pytest.raises(PassthroughError, match="kernel-install ran, and .* does not have a=1"):
            configure_host(grace.host, HostSettings(kernel_arguments=("a=1",)), False)
    else:
        assert configure_host(grace.host, HostSettings(kernel_arguments=("a=1",)), False)["changed"]


def test_systemd_boots_line_that_another_hand_edited_stays(grace):
    grace.write(SD_BOOT)
    grace.write("/boot/vmlinuz-7.3.4+deb13-arm64")
    grace.write("/etc/kernel/cmdline", "root=/dev/vda\n")
    grace.program("kernel-install")
    configure_host(grace.host, HostSettings(kernel_arguments=("a=1",)), False)
    grace.write("/etc/kernel/cmdline", "root=/dev/vdb a=1\n")
    configure_host(grace.host, HostSettings(), False)
    assert grace.read("/etc/kernel/cmdline") == "root=/dev/vdb\n"
    assert configure_host(grace.host, HostSettings(), False)["changed"] is False


def test_dracut_makes_red_hats_images(grace):
    grace.write("/boot/initramfs-4.18.0.img")
    grace.program("dracut")
    result = configure_host(grace.host, HostSettings(modprobe_blacklist=("nouveau",)), False)
    assert result["actions"][-1] == "run dracut --force --regenerate-all (modprobe.d is part of the initramfs)"
    assert result["untested"] == ["initramfs images by dracut"]
    assert configure_host(grace.host, HostSettings(), False)["actions"][-1].startswith("run dracut")


@pytest.mark.parametrize(("vendor", "unit", "arguments"), [
    ("GenuineIntel", None, ["intel_iommu=on"]), ("GenuineIntel", "dmar0", []), ("AuthenticAMD", None, []),
    (None, None, []),
])
def test_typed_wishes_follow_the_processor(tree, vendor, unit, arguments):
    tree.write("/proc/sys/kernel/arch", "x86_64\n")
    tree.write("/proc/cpuinfo", f"processor\t: 0\nvendor_id\t: {vendor}\n" if vendor else "processor\t: 0\n")
    if unit:
        tree.write(f"/sys/class/iommu/{unit}/x")
    tree.write("/boot/grub/grub.cfg")
    tree.program("update-grub", "exit 1")
    result = configure_host(tree.host, HostSettings(kernel_settings=(("iommu", "auto"),)), True)
    assert result["kernel_arguments"] == arguments
    assert result["reboot_required"] is bool(arguments)
