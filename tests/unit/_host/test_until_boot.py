# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only a boot brings into effect, and what a loaded module has in effect."""

from __future__ import annotations

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.until_boot import (
    PATH,
    UntilBoot,
    note_until_boot,
    options_in_effect,
    read_until_boot,
)


@pytest.mark.parametrize("value", [UntilBoot(), UntilBoot(("a=1", "b")), UntilBoot((), ("options vfio_pci x=1 y=2",)),
                                   UntilBoot(("argument x",), ("options b c",))])
def test_what_is_noted_is_read(tree, value):
    note_until_boot(tree.host, UntilBoot(("older",), ("options old x=1",)))
    note_until_boot(tree.host, value)
    assert read_until_boot(tree.host) == value
    assert tree.has(PATH) is (value != UntilBoot())


@pytest.mark.parametrize(("line", "parameters", "in_effect"), [
    ("options vfio-pci disable_idle_d3=1", None, True),  # not loaded: its next load takes them
    ("softdep vfio_pci pre: irqbypass", {}, True),
    ("options vfio-pci disable_idle_d3=1", {"disable_idle_d3": "Y"}, True),
    ("options vfio_pci disable-idle-d3=on", {"disable_idle_d3": "Y"}, True),
    ("options vfio_pci disable_idle_d3", {"disable_idle_d3": "Y"}, True),
    ("options vfio_pci disable_idle_d3=0", {"disable_idle_d3": "N"}, True),
    ("options vfio_pci disable_idle_d3=1", {"disable_idle_d3": "N"}, False),
    ("options vfio_pci disable_idle_d3=1", {}, False),  # not shown, so that nobody can say
    ("options vfio_pci ids=10de:2342", {"ids": "10de:2342"}, True),
    ("options vfio_pci ids=10de:2342 x=0x10", {"ids": "10de:2342", "x": "16"}, True),
    ("options vfio_pci ids=10de:2342 x=0x10", {"ids": "10de:2342", "x": "17"}, False),
])
def test_options_in_effect(tree, line, parameters, in_effect):
    if parameters is not None:
        tree.write("/sys/module/vfio_pci/uevent")
    for name, value in (parameters or {}).items():
        tree.write(f"/sys/module/vfio_pci/parameters/{name}", value + "\n")
    assert options_in_effect(tree.host, [line]) == (frozenset([line]) if in_effect else frozenset())
