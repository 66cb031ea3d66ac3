# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes how long each task took, as JSON, to the file that NVGRACE_TASK_SECONDS names: for the demo's breakdown."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: task_seconds
type: aggregate
short_description: Seconds of each task
description: For the breakdown that the demo of nvgrace.passthrough prints.
"""


class CallbackModule(CallbackBase):
    """A task ends where the next one begins, or with the run."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_seconds"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._seconds: dict[str, float] = {}
        self._current: tuple[str, float] | None = None

    def _end_task(self) -> None:
        if self._current is not None:
            name, started = self._current
            self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - started
            self._current = None

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._end_task()
        self._current = (task.get_name(), time.monotonic())

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._end_task()
        path = os.environ.get("NVGRACE_TASK_SECONDS")
        if path:
            with open(path, "w", encoding="utf-8") as handle:
                json.dump(self._seconds, handle, indent=2)
