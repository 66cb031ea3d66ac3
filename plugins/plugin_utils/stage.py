# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of the modules that host_survey asks: a task that it has answered calls no host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from ansible.plugins.action import ActionBase

from ansible_collections.nvgrace.passthrough.plugins.module_utils._survey.answer import unpack_answer

COLLECTION = "nvgrace.passthrough"
SURVEY = "survey"
# What a module may not tell Ansible's own code.
_ANSIBLES = "_ansible_"


def surveyed(survey: Any, module: str, arguments: Mapping[str, Any]) -> Optional[dict[str, Any]]:
    """The result in ``survey``, the ``answers`` of host_survey, for a task of ``module``; None where the host has to be
    asked."""
    answer = unpack_answer(survey.get(module)) if isinstance(survey, Mapping) else None
    if answer is None or not answer.serves(arguments):
        return None
    return {name: value for name, value in answer.result.items() if not name.startswith(_ANSIBLES)}


class StageAction(ActionBase):
    """A module's action plugin; NAME is the module's without the collection's."""

    NAME = ""
    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        survey = arguments.pop(SURVEY, None)
        wrap_async = bool(self._task.async_val) and not self._connection.has_native_async
        known = surveyed(survey, self.NAME, self.question(arguments)) if survey and not self._task.async_val else None
        result = self.call(arguments, task_vars, wrap_async) if known is None else known
        if not wrap_async:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def question(self, arguments: dict[str, Any]) -> Mapping[str, Any]:
        """What a survey must have asked so that its answer is this task's."""
        return arguments

    def call(self, arguments: dict[str, Any], task_vars: Optional[dict[str, Any]], wrap_async: bool) -> dict[str, Any]:
        """One call of the module on the host."""
        result: dict[str, Any] = self._execute_module(
            module_name=f"{COLLECTION}.{self.NAME}", module_args=arguments, task_vars=task_vars, wrap_async=wrap_async)
        return result
