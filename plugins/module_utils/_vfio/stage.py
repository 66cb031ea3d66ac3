# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""region_verify apart from AnsibleModule."""

from __future__ import annotations

from typing import Any

from .._core.host import Host
from .._core.stage import Asked, Stage
from .._gpu.select import GPUS_OPTION
from .verify import Verifier, VerifyOptions


def _work(module: Asked, host: Host) -> dict[str, Any]:
    return Verifier(host, VerifyOptions(**module.params, check_mode=module.check_mode), log=module.log).run()


REGION_VERIFY = Stage(
    name="region_verify",
    options={
        "gpus": GPUS_OPTION,
        "layout": {"type": "str", "choices": ["auto", "mainline", "bar2"], "default": "auto"},
        "probe": {"type": "str", "choices": ["none", "read", "full"], "default": "read"},
        "api": {"type": "str", "choices": ["auto", "group", "cdev"], "default": "auto"},
        "force": {"type": "bool", "default": False},
        "timeout": {"type": "int"},
    },
    work=_work,
)
