# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of region_verify: says that it still waits, because a GPU may take minutes to become ready."""

from __future__ import annotations

from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.ticker import Ticker

MODULE = "nvgrace.passthrough.region_verify"
SECONDS = 15.0


class ActionModule(ActionBase):
    """nvgrace.passthrough.region_verify"""

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        host = str((task_vars or {}).get("inventory_hostname", "the host"))
        display = Display()

        def tell(elapsed: float) -> None:
            display.display(f"{host}: region_verify is at {elapsed:.0f} seconds; a GPU that it has reset may need "
                            "30 to become ready, some 257. Its journal says which one.")

        wrap_async = bool(self._task.async_val) and not self._connection.has_native_async
        with Ticker(tell, SECONDS):
            result: dict[str, Any] = self._execute_module(
                module_name=MODULE, module_args=dict(self._task.args), task_vars=task_vars, wrap_async=wrap_async)
        if not wrap_async:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result
