# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says which hosts a task still runs on, and for how long, so that no long step is silent."""

from __future__ import annotations

DOCUMENTATION = """
name: alive
type: notification
short_description: Says that long tasks still run
version_added: 1.0.0
description:
  - While a task runs for long, prints how long it has been running and on which hosts, for example while a module of
    the kernel is built, packages are installed, or a host reboots.
  - Short tasks print nothing. The output of the run is otherwise as it was.
author: The nvgrace.passthrough contributors (@nvgrace-passthrough)
requirements:
  - Enabled with C(callbacks_enabled) in C(ansible.cfg).
options:
  seconds:
    description: How long a task runs before it is named, and how long until it is named again.
    type: float
    default: 30
    env: [{name: NVGRACE_ALIVE_SECONDS}]
    ini: [{section: callback_alive, key: seconds}]
"""

import sys
import threading
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.ticker import Ticker

NAMED_HOSTS = 5
LEAST_SECONDS = 0.1


def names(hosts: list[str]) -> str:
    """The hosts as text: the first five in the order of their names, and how many more."""
    text = ", ".join(sorted(hosts)[:NAMED_HOSTS])
    more = len(hosts) - NAMED_HOSTS
    return f"{text} and {more} more" if more > 0 else text


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """A host runs one task at a time. Ansible starts and ends tasks in one thread, the lines come from another."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "nvgrace.passthrough.alive"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._running: dict[str, tuple[str, float]] = {}  # by host: the task's name and its start
        self._ticker: Ticker | None = None

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._seconds = max(LEAST_SECONDS, self.get_option("seconds"))
        self._ticker = Ticker(self._tell, self._seconds)
        self._ticker.__enter__()

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if self._ticker is not None:
            self._ticker.__exit__()
            self._ticker = None

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        with self._lock:
            self._running[host.name] = (task.get_name(), time.monotonic())

    def _end(self, result: Any) -> None:
        with self._lock:
            self._running.pop(result.host.name, None)

    def v2_runner_on_ok(self, result: Any) -> None:
        self._end(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._end(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._end(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._end(result)

    def _tell(self, _elapsed: float) -> None:
        for line in self.lines(time.monotonic()):
            self._display.display(line)
        # Ansible leaves that to Python, which keeps some minutes of these lines back where the output is no terminal.
        sys.stdout.flush()

    def lines(self, now: float) -> list[str]:
        """A line for each task that has been running for long on at least one host."""
        with self._lock:
            running = dict(self._running)
        tasks: dict[str, dict[str, float]] = {}
        for host, (name, start) in running.items():
            if now - start >= self._seconds:
                tasks.setdefault(name, {})[host] = now - start
        return [f"{name}: still at work after {max(hosts.values()):.0f} seconds on {names(list(hosts))}"
                for name, hosts in tasks.items()]
