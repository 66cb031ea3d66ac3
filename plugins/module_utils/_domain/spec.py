# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The arguments of domain_xml, for the module and for its action plugin, which checks them first."""

from __future__ import annotations

from typing import Any

from .request import PROFILES

_DISK: dict[str, Any] = {
    "path": {"type": "str", "required": True},
    "format": {"type": "str", "choices": ["raw", "qcow2"], "default": "raw"},
    "target": {"type": "str"},
}
_NETWORK: dict[str, Any] = {"network": {"type": "str"}, "bridge": {"type": "str"}, "mac": {"type": "str"}}
_FIRMWARE: dict[str, Any] = {
    "loader": {"type": "str", "required": True},
    "nvram_template": {"type": "str", "required": True},
}
_KERNEL: dict[str, Any] = {
    "path": {"type": "str", "required": True},
    "initrd": {"type": "str"},
    "cmdline": {"type": "str"},
}
_VM: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "uuid": {"type": "str"},
    "vcpus": {"type": "int"},
    "memory": {"type": "str"},
    "gpus": {"type": "raw"},
    "type": {"type": "str", "choices": ["kvm", "qemu"], "default": "kvm"},
    "profile": {"type": "str", "choices": list(PROFILES), "default": "auto"},
    "hugepages": {"type": "str"},
    "pinning": {"type": "str", "choices": ["auto", "none"], "default": "auto"},
    "host_nodes": {"type": "list", "elements": "int"},
    "generic_initiators": {"type": "str", "choices": ["auto", "none"], "default": "auto"},
    "cmdqv": {"type": "bool", "default": False},
    "disks": {"type": "list", "elements": "dict", "options": _DISK},
    "networks": {"type": "list", "elements": "dict", "options": _NETWORK},
    "firmware": {"type": "dict", "options": _FIRMWARE},
    "kernel": {"type": "dict", "options": _KERNEL},
    "serial_log": {"type": "str"},
    "extra_xml": {"type": "str"},
    "autostart": {"type": "bool"},
}
ARGUMENT_SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent", "rendered"], "default": "present"},
    "vm": {"type": "dict", "options": _VM},
    "host": {"type": "dict"},
    "gpus": {"type": "list", "elements": "dict", "default": []},
    "regions": {"type": "list", "elements": "dict", "default": []},
    "template": {"type": "path"},
    "dest": {"type": "path"},
    "define": {"type": "bool", "default": True},
    "autostart": {"type": "bool"},
    "survey": {"type": "str"},
    "registered": {"type": "dict"},
}
REQUIRED_IF: list[tuple[str, str, tuple[str, ...]]] = [("state", "present", ("vm",)), ("state", "rendered", ("vm",))]
