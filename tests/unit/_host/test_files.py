# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The text of each file."""

from __future__ import annotations

import subprocess

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._host import files
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.settings import HostSettings, HugepageWish

HEADER = "# Written by nvgrace.passthrough.host_config; changes by hand are overwritten.\n"


@pytest.mark.parametrize(("make", "settings", "text"), [
    (files.modprobe_conf, HostSettings(modprobe_blacklist=("nouveau",), modprobe_options=("options a b=1",)),
     "blacklist nouveau\noptions a b=1\n"),
    (files.modules_load_conf, HostSettings(modules_load=("vfio_pci", "x")), "vfio_pci\nx\n"),
    (files.tmpfiles_conf, HostSettings(hugepages=HugepageWish(512 << 20, 8)),
     "w /sys/kernel/mm/hugepages/hugepages-524288kB/nr_hugepages - - - - 8\n"),
    (files.limits_conf, HostSettings(memlock="1048577"), "root - memlock 1025\n@kvm - memlock 1025\n"),
    (files.limits_conf, HostSettings(memlock="unlimited"), "root - memlock unlimited\n@kvm - memlock unlimited\n"),
    (files.unit_conf, HostSettings(memlock="1048577"), "[Service]\nLimitMEMLOCK=1048577\n"),
    (files.unit_conf, HostSettings(memlock="unlimited"), "[Service]\nLimitMEMLOCK=infinity\n"),
])
def test_content(make, settings, text):
    assert make(settings) == (HEADER + text).encode()
    assert make(HostSettings()) is None


def test_grub_dropin_appends_to_what_the_shell_has(tmp_path):
    dropin = tmp_path / "71.cfg"
    dropin.write_bytes(files.grub_dropin(("a=b,c", "d")) or b"")
    script = f'GRUB_CMDLINE_LINUX_DEFAULT="quiet"; . {dropin}; printf %s "$GRUB_CMDLINE_LINUX_DEFAULT"'
    assert subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True).stdout == b"quiet a=b,c d"
    assert files.grub_dropin(()) is None
