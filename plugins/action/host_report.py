# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of host_report: it does everything here and never calls the managed host."""

from __future__ import annotations

import datetime
import json
import os
import re
from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.module import (
    MAX_RESULT_TEXT,
    require_usable,
    shorten,
)
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.model import build_report
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.record import STAGES
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.text import host_lines
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.files import write_atomic
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.registered import REGISTERED, registered_results

_DICT_ARGUMENTS = ("host", "gpus", "stages")
_KNOWN_ARGUMENTS = frozenset((*_DICT_ARGUMENTS, "dest", "accepted", "reboot_required", "failure",
                              "after_failure", "quarantined", "show", "fail", REGISTERED))
_FLAGS = ("show", "fail")
_READ = ("host", "gpus")
_SHOW = "_ansible_verbose_always"
"""By this in a result ansible.builtin.debug has itself shown; another task would cost the controller time a host."""
_SAFE_NAME = re.compile(r"[^A-Za-z0-9._-]")


class ActionModule(ActionBase):
    """nvgrace.passthrough.host_report"""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        try:
            require_usable(arguments, MAX_RESULT_TEXT)
            if _take_registered(arguments, task_vars or {}):
                require_usable(arguments, MAX_RESULT_TEXT)
        except PassthroughError as error:
            raise AnsibleActionFail(shorten(error.message, self._task.args)) from None
        self._check(arguments)
        hostname = str((task_vars or {}).get("inventory_hostname", "unknown"))
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        report = build_report(hostname, arguments, self._task.check_mode, now)
        lines = host_lines(report)
        base = os.path.join(os.path.abspath(os.path.expanduser(arguments["dest"])), _SAFE_NAME.sub("_", hostname))
        if not self._task.check_mode:
            self._write(base, report, lines)
        result = {"changed": False, "path": f"{base}.json", "text_path": f"{base}.txt", "lines": lines,
                  "outcome": report["outcome"], **({_SHOW: True} if boolean(arguments.get("show", False)) else {})}
        if report["failure"] and boolean(arguments.get("fail", False)):
            result.update(failed=True, msg=f"{report['failure']} {report['after_failure']}".strip())
            if _SHOW not in result:
                del result["lines"]  # Ansible prints all of a result that failed
        return result

    @staticmethod
    def _check(arguments: dict[str, Any]) -> None:
        unknown = sorted(set(arguments) - _KNOWN_ARGUMENTS)
        if unknown:
            raise AnsibleActionFail(f"host_report does not know the option {', '.join(unknown)}.")
        dest, accepted = arguments.get("dest"), arguments.get("accepted") or []
        if not dest or not isinstance(dest, str):
            raise AnsibleActionFail("host_report needs dest, a directory on the controller.")
        if not isinstance(accepted, list) or not all(isinstance(item, str) for item in accepted):
            raise AnsibleActionFail("host_report: accepted must be a list of ids.")
        for name in _FLAGS:
            try:
                boolean(arguments.get(name, False))
            except TypeError:
                # from None: Ansible would append the message of the cause, which has the whole value
                raise AnsibleActionFail(f"host_report: {name} must be true or false.") from None
        for name in _DICT_ARGUMENTS:
            if not isinstance(arguments.get(name) or {}, dict):
                raise AnsibleActionFail(f"host_report: {name} must be a dictionary.")

    @staticmethod
    def _write(base: str, report: dict[str, Any], lines: list[str]) -> None:
        try:
            write_atomic(f"{base}.json", json.dumps(report, indent=2, sort_keys=True, default=str) + "\n")
            write_atomic(f"{base}.txt", "\n".join(lines) + "\n")
        except PassthroughError as error:
            raise AnsibleActionFail(error.message) from error


def _take_registered(arguments: dict[str, Any], task_vars: dict[str, Any]) -> bool:
    """Puts what is named in ``registered`` where its values would have been; whether that was anything."""
    results = registered_results(arguments.pop(REGISTERED, None) or {}, (*_READ, *STAGES[1:]), task_vars)
    arguments.update({name: result for name, result in results.items() if name in _READ})
    stages = {name: result for name, result in results.items() if name not in _READ}
    if stages:
        arguments["stages"] = {**(arguments.get("stages") or {}), **stages}
    return bool(results)
