# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts of Red Hat's family: grubby's answers, GRUB's configuration, entries."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host import entries

FORMS = Path(__file__).parent / "grubby"


@pytest.mark.parametrize(("form", "kernels", "words"), [
    ("rhel8.txt", ["/boot/vmlinuz-4.18.0-553.16.1.el8_10.aarch64",
                   "/boot/vmlinuz-0-rescue-67db13ba8cdb420794ef3ee0a8313205"],
     {"ro", "crashkernel=auto", "rd.lvm.lv=rhel/root", "rd.lvm.lv=rhel/swap", "quiet", "$tuned_params"}),
    ("rhel9.txt", ["/boot/vmlinuz-5.14.0-570.12.1.el9_6.aarch64+64k", "/boot/vmlinuz-5.14.0-570.el9.aarch64"],
     {"ro", "crashkernel=1G-4G:256M,4G-64G:320M,64G-:576M", "iommu.passthrough=1", "$tuned_params"}),
])
def test_documented_forms_of_grubby(form, kernels, words):
    found = entries.parse_entries((FORMS / form).read_text())
    assert [entry.kernel for entry in found] == kernels
    assert words <= set(found[0].arguments)


@pytest.mark.parametrize("text", ["", "grubby: no entries\n", 'kernel="/boot/vmlinuz"\n', "index=0\nindex=1\n"])
def test_answers_without_a_kernel(text):
    assert entries.parse_entries(text) == ()


def test_arguments_without_quotes():
    assert entries.parse_entries("index=0\nkernel=/boot/vmlinuz\n") == (entries.BootEntry("/boot/vmlinuz", ()),)


@pytest.mark.parametrize(("words", "old", "new", "expected"), [
    ("ro quiet", "", "a=1 b", "ro quiet a=1 b"),
    ("ro a=1 quiet", "a=1", "a=1", "ro a=1 quiet"),
    ("ro a=1 b", "a=1 b", "b c", "ro b c"),
    ("ro a=1", "a=1", "", "ro"),
    ("a=0", "", "a=1", "a=0 a=1"),
])
def test_with_arguments(words, old, new, expected):
    assert " ".join(entries.with_arguments(words.split(), old.split(), new.split())) == expected


@pytest.mark.parametrize(("line", "words"), [
    ('GRUB_CMDLINE_LINUX="ro quiet"', ("ro", "quiet")),
    ("GRUB_CMDLINE_LINUX='ro'", ("ro",)),
    ("GRUB_CMDLINE_LINUX=quiet", ("quiet",)),
    ('GRUB_CMDLINE_LINUX=""', ()),
    ('GRUB_CMDLINE_LINUX="a"\nGRUB_CMDLINE_LINUX="b"', ("b",)),
    ("GRUB_TIMEOUT=5", ()),
])
def test_grub_words(line, words):
    text = f"GRUB_DEFAULT=saved\n{line}\nGRUB_DISABLE_RECOVERY=true\n"
    assert entries.grub_words(text) == words
    assert entries.grub_words(entries.grub_text(text, ("x=1", "y"))) == ("x=1", "y")


@pytest.mark.parametrize("value", ['"$OTHER quiet"', '"a\\" b"', '"$(cat /proc/cmdline)"', '"a" # mine', '"a'])
def test_line_that_only_a_shell_can_read_is_refused(value):
    with pytest.raises(PassthroughError, match="more than a quoted text"):
        entries.grub_words(f"GRUB_CMDLINE_LINUX={value}\n")


@pytest.mark.parametrize(("text", "expected"), [
    ("", 'GRUB_CMDLINE_LINUX="a"\n'), ("X=1", 'X=1\nGRUB_CMDLINE_LINUX="a"\n'),
    ('GRUB_CMDLINE_LINUX="b"\nX=1\n', 'GRUB_CMDLINE_LINUX="a"\nX=1\n'),
])
def test_grub_text(text, expected):
    assert entries.grub_text(text, ("a",)) == expected


@pytest.mark.parametrize(("path", "one", "other", "same"), [
    ("/boot/loader/entries/a.conf", "options ro  a=0\n\nlinux /x\n", "options ro a=1\nlinux /x\n", True),
    ("/boot/loader/entries/a.conf", "options ro a=0\n", "options rw a=1\n", False),
    ("/etc/kernel/cmdline", "ro\n", "ro a=1 \n", True),
    (entries.DEFAULT_GRUB, 'GRUB_CMDLINE_LINUX="ro a=0"\n', "GRUB_CMDLINE_LINUX='ro a=1'\n", True),
    (entries.DEFAULT_GRUB, 'GRUB_CMDLINE_LINUX="ro"\n', 'GRUB_CMDLINE_LINUX="ro a=1"\nGRUB_TIMEOUT=1\n', False),
])
def test_pictures_differ_by_the_work_of_other_hands_only(path, one, other, same):
    assert (entries.picture(path, one.encode(), ["a=1"]) == entries.picture(path, other.encode(), ["a=1"])) is same
    assert entries.picture(path, None, ["a=1"]) is None
