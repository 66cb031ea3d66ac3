# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the host for host_config, and the record beside the journal."""

from __future__ import annotations

import json

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.journal import STATE_DIR, Journal
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.state import (
    HugepageRecord,
    Record,
    RecordFile,
    read_state,
)

POOL = HugepageRecord(2 << 20, 0, 512, "boot-1")


def test_state_of_a_grace_host(grace):
    grace.program("update-initramfs")
    grace.write("/boot/initrd.img-7.3.4+deb13-arm64")
    grace.write("/boot/vmlinuz-7.3.4+deb13-arm64")
    grace.write("/lib/modules/6.12/vmlinuz")
    grace.write("/lib/modules/5.10/modules.dep")
    grace.write("/usr/lib/systemd/system/libvirtd.service")
    grace.write("/run/libvirtd.pid", "42\n")
    grace.write("/proc/42/limits", "Max locked memory 1 4096 bytes\n")
    state = read_state(grace.host)
    assert state.cmdline == ("BOOT_IMAGE=/vmlinuz", "root=/dev/vda", "rw", "quiet")
    assert state.loader_cmdline == ("root=/dev/vda", "rw", "quiet")
    assert state.kernels == (("6.12", "/lib/modules/6.12/vmlinuz"),
                             ("7.3.4+deb13-arm64", "/boot/vmlinuz-7.3.4+deb13-arm64"))
    assert (state.libvirt_units, state.running_memlock) == (("libvirtd.service",), {"libvirtd.service": 4096})
    assert (state.initramfs, state.hugepages, state.record) == ("update-initramfs", {2 << 20: 0}, Record({}))
    assert (state.processor, state.has_iommu, state.boot_entries) == ("arm", True, ())
    assert not state.has_apt


def test_apt_is_its_program_and_its_directory(grace):
    grace.program("apt-get")
    assert not read_state(grace.host).has_apt
    grace.write("/etc/apt/sources.list")
    assert read_state(grace.host).has_apt


@pytest.mark.parametrize(("programs", "image", "expected"), [
    (["update-initramfs"], "initrd.img-x", "update-initramfs"), (["update-initramfs", "dracut"], "initrd.img-x",
                                                                 "update-initramfs"),
    (["dracut"], "initramfs-5.14.img", "dracut"), (["update-initramfs"], None, None), ([], "initrd.img-x", None),
    (["dracut"], "initrd.img-x", None),
])
def test_initramfs_needs_the_program_and_an_image(grace, programs, image, expected):
    for program in programs:
        grace.program(program)
    if image:
        grace.write(f"/boot/{image}")
    assert read_state(grace.host).initramfs == expected


@pytest.mark.parametrize(("paths", "words"), [
    ({"/etc/kernel/cmdline": "a b\n", "/usr/lib/kernel/cmdline": "c"}, ("a", "b")),
    ({"/usr/lib/kernel/cmdline": "c d"}, ("c", "d")),
    ({"/proc/cmdline": "initrd=\\x\\i root=/dev/vda"}, ("root=/dev/vda",)),
])
def test_line_that_kernel_install_uses(tree, paths, words):
    for path, text in paths.items():
        tree.write(path, text)
    assert read_state(tree.host).loader_cmdline == words


@pytest.mark.parametrize("pid", ["", "abc", "../1"])
def test_odd_pid_file_is_no_daemon(grace, pid):
    grace.write("/usr/lib/systemd/system/libvirtd.service")
    grace.write("/run/libvirtd.pid", pid)
    assert read_state(grace.host).running_memlock == {}


def test_files_in_the_journal_are_read_with_their_originals(tree):
    tree.write("/etc/odd", "old")
    journal = Journal(tree.host, "host")
    journal.remember("/etc/odd")
    tree.write("/etc/odd", "new")
    state = read_state(tree.host)
    assert state.files["/etc/odd"].content == b"new"
    assert state.originals["/etc/odd"].content == b"old"


def test_record_parts_are_kept_beside_the_journal(tree):
    Journal(tree.host, "host").remember("/etc/x")
    record = RecordFile(tree.host)
    record.stamp("update-grub", "1")
    record.stamp("daemon-reload", "2")
    record.arguments(("a", "b"))
    record.hugepages(POOL)
    assert record.load() == Record({"update-grub": "1", "daemon-reload": "2"}, ("a", "b"), POOL)
    assert set(json.loads(tree.read(f"{STATE_DIR}/host.json"))) == {"files", "host"}


def test_empty_record_leaves_nothing_behind(tree):
    record = RecordFile(tree.host)
    record.stamp("update-grub", "1")
    record.arguments(("a",))
    record.hugepages(POOL)
    record.stamp("update-grub", None)
    record.arguments(())
    record.hugepages(None)
    assert record.load() == Record({})
    assert not tree.has(STATE_DIR)
