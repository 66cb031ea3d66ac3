# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of region_verify: says that it still waits, because a GPU may take minutes to become ready."""

from __future__ import annotations

from typing import Any, Optional

from ansible.utils.display import Display

from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.stage import StageAction
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.ticker import Ticker

SECONDS = 15.0


class ActionModule(StageAction):
    """nvgrace.passthrough.region_verify"""

    NAME = "region_verify"

    def call(self, arguments: dict[str, Any], task_vars: Optional[dict[str, Any]], wrap_async: bool) -> dict[str, Any]:
        host = str((task_vars or {}).get("inventory_hostname", "the host"))
        display = Display()

        def tell(elapsed: float) -> None:
            display.display(f"{host}: region_verify is at {elapsed:.0f} seconds; a GPU that it has reset may need "
                            "30 to become ready, some 257. Its journal says which one.")

        with Ticker(tell, SECONDS):
            return super().call(arguments, task_vars, wrap_async)
