# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of fleet_report: it does everything here and never calls a managed host."""

from __future__ import annotations

import os
from typing import Any, Optional

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.module import (
    MAX_VALUES,
    WRONG_FORM,
    require_usable,
    shorten,
)
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.files import write_atomic
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.fleet_report import FORMATS, SUFFIXES, read_fleet

_SPEC: dict[str, dict[str, Any]] = {
    "src": {"type": "list", "elements": "path", "required": True},
    "dest": {"type": "path", "required": True},
    "formats": {"type": "list", "elements": "str", "choices": list(FORMATS), "default": ["html"]},
    "expected_hosts": {"type": "list", "elements": "str", "default": []},
}


class ActionModule(ActionBase):
    """nvgrace.passthrough.fleet_report"""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        try:
            require_usable(self._task.args, most=MAX_VALUES)
            _validation, options = self.validate_argument_spec(argument_spec=_SPEC)
            return self._report(options)
        except PassthroughError as error:
            # from None, here and below: Ansible would append the long message of the cause
            raise AnsibleActionFail(shorten(error.message, self._task.args)) from None
        except (AnsibleError, *WRONG_FORM) as error:
            raise AnsibleActionFail(shorten(str(error), self._task.args)) from None

    def _report(self, options: dict[str, Any]) -> dict[str, Any]:
        if not options["src"] or not options["formats"]:
            raise PassthroughError("fleet_report needs at least one directory in src and one format in formats.")
        fleet = read_fleet(options["src"], options["expected_hosts"])
        base = os.path.join(os.path.abspath(options["dest"]), "fleet")
        paths = {name: f"{base}{SUFFIXES[name]}" for name in options["formats"]}
        for name, path in paths.items():
            text = FORMATS[name](fleet)
            if not self._task.check_mode:
                write_atomic(path, text)
        return {"changed": False, "paths": paths, "outcomes": dict(fleet.outcomes),
                "problems": [{"name": problem.name, "why": problem.why} for problem in fleet.problems],
                "outliers": [f"{odd.host} {odd.address}: {odd.text}" for odd in fleet.outliers]}
