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
_SEEN = "NVGRACE_PASSTHROUGH_DRIVER"
_HEADER = "# Written by the Ansible collection nvgrace.passthrough; gpu_driver with state released takes it away.\n"


def rule_path(address: str) -> str:
    """The udev rule file of one function."""
    return f"{_RULES}/71-nvgrace-{address}.rules"


def rule_content(identity: PciIdentity, driver: str, module: str, device_group: Optional[str] = None) -> bytes:
    """Rules for this function alone, as long as the same card is in the slot.

    They bind it whatever comes first. The override keeps every driver out that registers from now on. A driver that was
    there before the function takes it before udev hears of it (the sound and USB drivers at boot, any driver at
    hotplug), and lets go of it. drivers_probe is for the case that the VFIO module is loaded already, RUN for the case
    that it is not: its registration finds the override in place.

    A driver is asked to let go once for each appearance of the function, when nobody can have it in use: udev keeps the
    property for as long as the function is there. A later "udevadm trigger --action=add" unbinds nothing.
    ``device_group``: the user group that gets its device nodes.
    """
    match = (f'ACTION=="add", SUBSYSTEM=="pci", KERNEL=="{identity.address}", ATTR{{vendor}}=="0x{identity.vendor}", '
             f'ATTR{{device}}=="0x{identity.device}"')
    # every event writes udev's database anew
    kept = f'ACTION!="remove", SUBSYSTEM=="pci", KERNEL=="{identity.address}", IMPORT{{db}}="{_SEEN}"\n'
    rules = (
        f'ATTR{{driver_override}}="{driver}"',
        f'ENV{{{_SEEN}}}!="?*", DRIVER=="?*", DRIVER!="{driver}", ATTR{{driver/unbind}}="{identity.address}"',
        f'ENV{{{_SEEN}}}="{driver}", ATTR{{subsystem/drivers_probe}}="{identity.address}", '
        f'RUN{{builtin}}+="kmod load {module}"',
    )
    lines = "".join(f"{match}, {rule}\n" for rule in rules)
    return f"{_HEADER}{kept}{lines}{rule_lines(identity.address, device_group)}".encode()


def modules_load_content(modules: Iterable[str]) -> bytes:
    """The shared file: each VFIO module once, in a stable order."""
    return (_HEADER + "".join(f"{module}\n" for module in sorted(set(modules)))).encode()
