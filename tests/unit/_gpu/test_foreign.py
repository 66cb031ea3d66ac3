# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files by another hand that contradict a persistent binding: file and line -> sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.driver import bind_gpus
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.foreign import (
    Subject,
    contradictions,
    read_foreign_files,
)
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.model import PciIdentity
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.options import DriverOptions
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.persist import rule_path
from ansible_collections.nvgrace.passthrough.tests.unit._gpu.fake_sysfs import FakeHost, grace_blackwell

GPU = "0009:01:00.0"
MODULE = "nvgrace_gpu_vfio_pci"
SUBJECT = Subject(PciIdentity(GPU, "10de", "2342", 0x030200), MODULE, MODULE)
AUDIO = Subject(PciIdentity("0009:01:00.1", "10de", "22ba", 0x040300), "vfio-pci", "vfio_pci", "snd_hda_intel")
UDEV = "/etc/udev/rules.d/10-site.rules"
MODPROBE = "/etc/modprobe.d/site.conf"


def told(root: Path, *files: tuple[str, str]) -> list[str]:
    host = FakeHost(root)
    for path, text in files:
        host.write(path, text)
    subjects = [SUBJECT, AUDIO]
    return contradictions(subjects, read_foreign_files(host, [item.identity.address for item in subjects]))


@pytest.mark.parametrize(("path", "text", "sentence"), [
    (UDEV, f'# x\nKERNEL=="{GPU}", ATTR{{driver_override}}="vfio-pci"\n',
     f"{UDEV}:2 sets driver_override of {GPU} to vfio-pci, and this run to {MODULE}: remove one of the two."),
    (UDEV, 'ACTION=="add", SUBSYSTEM=="pci", ATTR{vendor}=="0x10de", ATTR{class}=="0x0302*", \\\n'
           '  ATTR{driver_override}="nvidia"\n',
     f"{UDEV}:1 sets driver_override of {GPU} to nvidia, and"),
    (UDEV, 'ENV{PCI_ID}=="10DE:2342", ATTR{driver_override}=""\n',
     f"{UDEV}:1 sets driver_override of {GPU} to nothing"),
    ("/usr/lib/udev/rules.d/90-x.rules", f'KERNELS=="{GPU}|x", ATTR{{driver_override}}:="none"\n',
     f"/usr/lib/udev/rules.d/90-x.rules:1 sets driver_override of {GPU} to none"),
    (UDEV, f'ACTION=="add", RUN+="/usr/local/bin/driverctl --nosave set-override {GPU} vfio-pci"\n',
     f"{UDEV}:1 runs a program on the driver of {GPU} (/usr/local/bin/driverctl"),
    (UDEV, 'SUBSYSTEM=="vfio", MODE="0666"\n', f"{UDEV}:1 opens VFIO devices to everybody"),
    (UDEV, 'SUBSYSTEM=="vfio-dev", KERNEL=="*", MODE="0666"\n', f"{UDEV}:1 opens VFIO devices to everybody"),
    (UDEV, 'KERNEL=="vfio*", MODE="0666"\n', f"{UDEV}:1 opens VFIO devices to everybody"),
    (f"/etc/driverctl.d/{GPU}", "vfio-pci\n", f"/etc/driverctl.d/{GPU}:1: driverctl gives {GPU} to vfio-pci at boot"),
    (MODPROBE, "\noptions vfio-pci ids=10DE:2342,8086:1572 disable_vga=1\n",
     f"{MODPROBE}:2 gives every 10de:2342 of the host to vfio-pci, listed or not, and this run {GPU} to {MODULE}"),
    (MODPROBE, 'options vfio_pci ids="10de:22ba:10de:16eb"\n', f"{MODPROBE}:1 gives every 10de:22ba"),
    (MODPROBE, "install nvgrace-gpu-vfio-pci /bin/false\n",
     f"{MODPROBE}:1 replaces the loading of {MODULE} by a command of its own (/bin/false)"),
    (MODPROBE, "blacklist nvgrace_gpu_vfio_pci\n", f"{MODPROBE}:1 blacklists {MODULE}, which udev"),
    (MODPROBE, "softdep nvgrace-gpu-vfio-pci pre: nvidia-drm vfio\n",
     f"{MODPROBE}:1 loads nvidia-drm whenever {MODULE} is loaded"),
    ("/etc/modules-load.d/nvidia.conf", "nvidia-uvm\n",
     "/etc/modules-load.d/nvidia.conf:1 loads nvidia-uvm at boot before udev has seen the devices, so that it may take "
     f"{GPU}"),
    ("/etc/modules", "# first\nloop\nsnd-hda-intel\n",
     "/etc/modules:3 loads snd-hda-intel at boot before udev has seen the devices, so that it may take 0009:01:00.1"),
    ("/etc/initramfs-tools/modules", "nouveau modeset=1\n", "/etc/initramfs-tools/modules:1 loads nouveau at boot"),
    ("/etc/dracut.conf", 'force_drivers=" nouveau "\n', "/etc/dracut.conf:1 loads nouveau at boot"),
    ("/etc/dracut.conf.d/nvidia.conf", "# x\nforce_drivers+=' nvidia_drm nvidia '\n",
     "/etc/dracut.conf.d/nvidia.conf:2 loads nvidia_drm at boot"),
    ("/proc/cmdline", "quiet vfio-pci.ids=10de:2342\n", "The kernel command line gives every 10de:2342 of the host"),
    ("/proc/cmdline", "quiet modules_load=loop,nvidia-drm\n", "The kernel command line loads nvidia-drm at boot"),
    ("/proc/cmdline", "rd.driver.pre=nouveau\n", "The kernel command line loads nouveau at boot"),
    ("/proc/cmdline", "module_blacklist=nouveau,nvgrace_gpu_vfio_pci\n", "The kernel command line blacklists"),
])
def test_contradicts(tmp_path: Path, path: str, text: str, sentence: str) -> None:
    found = told(tmp_path, (path, text))
    assert found and found[0].startswith(sentence)


@pytest.mark.parametrize(("path", "text"), [
    (UDEV, f'# KERNEL=="{GPU}", ATTR{{driver_override}}="x"\n'),
    (UDEV, f'KERNEL=="{GPU}", ATTR{{driver_override}}="{MODULE}"\n'),
    (UDEV, f'KERNEL!="{GPU}", ATTR{{vendor}}=="0x10de", ATTR{{device}}!="0x22ba", ATTR{{driver_override}}="x"\n'),
    (UDEV, 'KERNEL=="0008:*", ATTR{driver_override}="x"\n'),
    (UDEV, 'SUBSYSTEM=="usb", ATTR{driver_override}="x"\n'),
    (UDEV, f'ATTR{{driver_override}}=="x", KERNEL=="{GPU}"\n'),
    (UDEV, f'KERNEL=="{GPU}", RUN+="/usr/bin/logger {GPU}"\n'),
    (UDEV, 'SUBSYSTEM=="vfio", GROUP="kvm", MODE="0660"\n'),
    (UDEV, 'SUBSYSTEM=="misc", KERNEL=="vfio", MODE="0666"\n'),
    # as systemd has it, now and before
    (UDEV, 'KERNEL=="vfio", MODE="0666", OPTIONS+="static_node=vfio/vfio"\n'),
    (UDEV, 'KERNEL=="vfio/vfio", MODE="0666", OPTIONS+="static_node=vfio/vfio"\n'),
    (UDEV, 'KERNEL=="vfio*", SUBSYSTEM=="tty", MODE="0666"\n'),
    (UDEV, 'SUBSYSTEM=="vfio", MODE="$env{X}"\n'),
    (rule_path(GPU), f'KERNEL=="{GPU}", ATTR{{driver_override}}="of-an-earlier-run"\n'),
    ("/etc/udev/rules.d/10-site.rules.bak", f'KERNEL=="{GPU}", ATTR{{driver_override}}="x"\n'),
    (f"/etc/driverctl.d/{GPU}", f"{MODULE}\n"),
    ("/etc/driverctl.d/0008:01:00.0", "vfio-pci\n"),
    (MODPROBE, "options vfio-pci ids=10de:2941\noptions vfio-pci disable_vga=1\noptions nouveau ids=10de:2342\n"),
    (MODPROBE, "blacklist nouveau\ninstall nouveau /bin/false\nsoftdep nvidia pre: vfio-pci\n"),
    (MODPROBE, f"softdep {MODULE} pre: irqbypass\nsoftdep\n"),
    ("/etc/modules-load.d/x.conf", "vfio_pci\nkvm\n"),
    ("/etc/dracut.conf.d/vfio.conf", 'add_drivers+=" nouveau "\nforce_drivers+=" vfio-pci "\n'),
    ("/etc/dracut.conf.d/vfio.conf.bak", 'force_drivers+=" nouveau "\n'),
    ("/proc/cmdline", "quiet module_blacklist=nouveau vfio-pci.ids=8086:1572\n"),
    ("/proc/cmdline", "modules_load=loop,vfio_pci rd.driver.pre=\n"),
])
def test_agrees(tmp_path: Path, path: str, text: str) -> None:
    assert told(tmp_path, (path, text)) == []


def test_of_equal_names_the_first_directory_counts(tmp_path: Path) -> None:
    rule = f'KERNEL=="{GPU}", ATTR{{driver_override}}="x"\n'
    assert told(tmp_path, ("/usr/lib/udev/rules.d/10-site.rules", rule), (UDEV, "# masked\n")) == []


def test_binding_warns_and_goes_on_and_a_binding_that_is_not_persistent_does_not_ask(tmp_path: Path) -> None:
    host = grace_blackwell(tmp_path)
    host.write("/etc/driverctl.d/0018:01:00.0", "nvidia\n")
    gpus = [{"address": "0018:01:00.0"}]
    result = bind_gpus(host, DriverOptions(gpus=gpus, persistent=False))
    assert result["warnings"] == []
    for check_mode in (True, False):
        result = bind_gpus(host, DriverOptions(gpus=gpus, check_mode=check_mode))
        assert len(result["warnings"]) == 1 and result["warnings"][0].startswith("/etc/driverctl.d/0018:01:00.0:1")
