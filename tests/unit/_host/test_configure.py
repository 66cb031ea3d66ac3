# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""host_config from end to end on a host in a directory: apply, again, check mode, interruption, give back."""

from __future__ import annotations

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.plan import apply_step
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host import configure
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.configure import configure_host
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.settings import HostSettings, HugepageWish

ALL = HostSettings(
    kernel_arguments=("init_on_alloc=0", "numa_balancing=disable"), modprobe_blacklist=("nouveau",),
    modprobe_options=("options vfio_pci disable_idle_d3=1",), modules_load=("vfio-pci", "vfio_iommu_type1"),
    hugepages=HugepageWish(2 << 20, 8), memlock="unlimited")
POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
SD_BOOT = "/boot/efi/loader/loader.conf"


@pytest.fixture(params=["grub", "systemd-boot"])
def server(request, grace):
    """A host with each boot loader; update-grub and kernel-install put the arguments where a boot would take them."""
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
        grace.program("update-grub", f"cat {grace.root}/etc/default/grub.d/*.cfg > {grace.root}/boot/grub/grub.cfg"
                      f" 2>/dev/null || : > {grace.root}/boot/grub/grub.cfg")
    else:
        grace.write(SD_BOOT)
        grace.program("kernel-install", f"cat {grace.root}/etc/kernel/cmdline > {grace.root}/boot/efi/entry")
        grace.write("/boot/efi/entry", "root=/dev/vda rw quiet\n")
    return grace


def _entries(tree):
    return tree.read("/boot/grub/grub.cfg" if tree.has("/boot/grub/grub.cfg") else "/boot/efi/entry")


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

    calls = server.calls()
    second = configure_host(server.host, ALL, False)
    assert (second["changed"], second["actions"], server.calls()) == (False, [], calls)
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
    assert (server.snapshot(), server.calls(), server.read(POOL)) == (before, [], "0")
    done = configure_host(server.host, ALL, False)
    assert predicted == done


@pytest.mark.parametrize("step", range(12))
def test_way_there_that_died_before_a_step_is_completed(server, monkeypatch, step):
    before = server.snapshot()
    _apply_first_steps(server, monkeypatch, ALL, step)
    configure_host(server.host, ALL, False)
    assert configure_host(server.host, ALL, False)["changed"] is False
    assert "init_on_alloc=0 numa_balancing=disable" in _entries(server)
    assert server.has("/boot/images-have-nouveau")
    configure_host(server.host, HostSettings(), False)
    assert server.snapshot() == before


@pytest.mark.parametrize("step", range(12))
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
    assert len(configure_host(server.host, ALL, False)["actions"]) <= 12
    assert len(configure_host(server.host, HostSettings(), False)["actions"]) <= 12


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
