# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""host_config apart from AnsibleModule."""

from __future__ import annotations

from typing import Any

from .._core.host import Host
from .._core.stage import Asked, Stage
from .arguments import CHOICES, UNMANAGED
from .configure import configure_host
from .settings import HostSettings, parse_settings

_SETTINGS = {name: {"type": "str", "choices": list(choices), "default": UNMANAGED}
             for name, choices in CHOICES.items()}
_LIST = {"type": "list", "elements": "str", "default": []}


def _configure(module: Asked, host: Host) -> dict[str, Any]:
    settings = parse_settings(module.params)
    if module.params["state"] == "absent":
        settings = HostSettings(update_initramfs=settings.update_initramfs)
    result = configure_host(host, settings, module.check_mode)
    if result["untested"]:
        module.warn(f"This host is changed in a way that was never run on a real one of its kind "
                    f"({', '.join(result['untested'])}): look at the result before you reboot.")
    return result


HOST_CONFIG = Stage(
    name="host_config",
    options={
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "kernel_arguments": _LIST,
        "kernel_settings": {"type": "dict", "options": _SETTINGS},
        "modprobe_blacklist": _LIST,
        "modprobe_options": _LIST,
        "modules_load": _LIST,
        "hugepages": {
            "type": "dict",
            "options": {"size": {"type": "str", "required": True}, "count": {"type": "int", "required": True}},
        },
        "memlock": {"type": "str"},
        "hold_kernel": {"type": "bool", "default": False},
        "update_initramfs": {"type": "str", "choices": ["auto", "never"], "default": "auto"},
    },
    work=_configure,
)
