# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""gpu_driver apart from AnsibleModule."""

from __future__ import annotations

from typing import Any

from .._core.host import Host
from .._core.stage import Asked, Stage
from .driver import bind_gpus
from .giveback import release_gpus
from .options import parse_options
from .select import GPUS_OPTION


def _work(module: Asked, host: Host) -> dict[str, Any]:
    options = parse_options(module.params, module.check_mode)
    result = bind_gpus(host, options) if module.params["state"] == "bound" else release_gpus(host, options)
    for warning in result.pop("warnings"):
        module.warn(warning)
    return result


GPU_DRIVER = Stage(
    name="gpu_driver",
    options={
        "gpus": GPUS_OPTION,
        "state": {"type": "str", "choices": ["bound", "released"], "default": "bound"},
        "driver": {"type": "str", "default": "auto"},
        "persistent": {"type": "bool", "default": True},
        "group_consent": {"type": "list", "elements": "str", "default": []},
        "in_use": {"type": "str", "choices": ["fail", "wait"], "default": "fail"},
        "timeout": {"type": "int", "default": 60},
        "device_group": {"type": "str"},
        "planned_modules": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "module": {"type": "str", "required": True},
                "driver": {"type": "str", "required": True},
                "aliases": {"type": "list", "elements": "str", "default": []},
            },
        },
    },
    work=_work,
    rules={"required_if": [("state", "bound", ["gpus"])]},
)
