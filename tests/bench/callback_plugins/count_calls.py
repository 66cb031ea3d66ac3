# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counts and times module calls on managed hosts: facts, copies and the inner calls of action plugins included.

A callback sees one result a task, however many modules the task's action plugin ran. So this wraps
ActionBase._execute_module, in the main process, before workers are forked, and each call appends a line (host, module,
seconds) to the file that NVGRACE_COUNT_CALLS names.
"""

from __future__ import annotations

import os
import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: count_calls
type: aggregate
short_description: Counts module calls on managed hosts
description: For the benchmarks of nvgrace.passthrough.
"""

_PATH = os.environ.get("NVGRACE_COUNT_CALLS", "")
_execute_module = ActionBase._execute_module


def _counting(self: ActionBase, module_name: str | None = None, *args: Any, **kwargs: Any) -> Any:
    host = (kwargs.get("task_vars") or {}).get("inventory_hostname", "?")
    started = time.monotonic()
    try:
        return _execute_module(self, module_name, *args, **kwargs)
    finally:
        line = f"{host} {module_name or self._task.action} {time.monotonic() - started:.4f}\n".encode()
        handle = os.open(_PATH, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)


class CallbackModule(CallbackBase):
    """Installs the wrapper; prints nothing itself."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "count_calls"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        if _PATH:
            ActionBase._execute_module = _counting
