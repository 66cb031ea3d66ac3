# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that bind a function again at each boot and at hotplug: a udev rule for it, and a modules-load.d file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Optional

from .model import PciIdentity
from .nodes import rule_lines

MODULES_LOAD = "/etc/modules-load.d/nvgrace-passthrough.conf"
_RULES = "/etc/udev/rules.d"
_HEADER = "# Written by the Ansible collection nvgrace.passthrough; gpu_driver with state released takes it away.\n"


def rule_path(address: str) -> str:
    """The udev rule file of one function."""
    return f"{_RULES}/71-nvgrace-{address}.rules"


def rule_content(identity: PciIdentity, driver: str, module: str, device_group: Optional[str] = None) -> bytes:
    """A rule for this function alone, as long as the same card is in the slot.

    The order makes it safe against every order of events: first driver_override, then drivers_probe for the case
    that the module is loaded already, then the module for the case that it is not, whose registration finds the
    override in place. A rule runs before its RUN list, so drivers that match by modalias come too late.
    ``device_group``: the user group that gets its device nodes.
    """
    match = (f'ACTION=="add", SUBSYSTEM=="pci", KERNEL=="{identity.address}", ATTR{{vendor}}=="0x{identity.vendor}", '
             f'ATTR{{device}}=="0x{identity.device}"')
    assign = (f'ATTR{{driver_override}}="{driver}", ATTR{{subsystem/drivers_probe}}="{identity.address}", '
              f'RUN{{builtin}}+="kmod load {module}"')
    return f"{_HEADER}{match}, {assign}\n{rule_lines(identity.address, device_group)}".encode()


def modules_load_content(modules: Iterable[str]) -> bytes:
    """The shared file: each VFIO module once, in a stable order."""
    return (_HEADER + "".join(f"{module}\n" for module in sorted(set(modules)))).encode()
