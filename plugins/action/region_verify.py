# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of region_verify: says that it still waits, because a GPU may take minutes to become ready."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Optional

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

MODULE = "nvgrace.passthrough.region_verify"
SECONDS = 15.0


class Ticker:
    """Calls ``tell`` with the seconds so far, every ``interval`` seconds while the block runs."""

    def __init__(self, tell: Callable[[float], None], interval: float) -> None:
        self._tell = tell
        self._interval = interval
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Ticker:
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._done.set()
        self._thread.join()

    def _tick(self) -> None:
        while not self._done.wait(self._interval):
            self._tell(time.monotonic() - self._started)


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
