# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""gpu_info apart from AnsibleModule."""

from __future__ import annotations

from typing import Any

from .._core.host import Host
from .._core.stage import Asked, Stage
from .inventory import read_gpus
from .select import GPUS_OPTION


def _work(module: Asked, host: Host) -> dict[str, Any]:
    return {"changed": False, "gpus": read_gpus(host, module.params["gpus"])}


GPU_INFO = Stage(
    name="gpu_info",
    options={"gpus": GPUS_OPTION},
    work=_work,
    locked=False,
)
