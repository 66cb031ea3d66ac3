# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose processors a host has: kernel arguments differ by it."""

from __future__ import annotations

import re

from .._core.host import Host
from .kernel import read_machine

ARM = "arm"
INTEL = "intel"
AMD = "amd"
OTHER = "other"

_VENDORS = {b"GenuineIntel": INTEL, b"AuthenticAMD": AMD}
# The first processor is enough, and the whole file takes the kernel milliseconds on a big host.
_CPUINFO_HEAD = 2048


def read_processor(host: Host) -> str:
    """"arm", "intel", "amd" or "other"."""
    if read_machine(host) == "aarch64":
        return ARM
    vendor = re.search(rb"^vendor_id\s*:\s*(\S+)", host.read_bytes("/proc/cpuinfo", _CPUINFO_HEAD) or b"", re.MULTILINE)
    return _VENDORS.get(vendor.group(1), OTHER) if vendor else OTHER
