# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of the modules that host_survey asks: a task that it has answered calls no host."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.template import Templar, trust_as_template

from ansible_collections.nvgrace.passthrough.plugins.module_utils._survey.answer import unpack_answer

COLLECTION = "nvgrace.passthrough"
SURVEY = "survey"
ASKED_AT, PLAY, UNTIL = "asked_at", "play", "until"
"""What the controller notes in a survey's result: when it was made, by its steady clock, in which play, and the
variables of the tasks that end its time."""
MAX_AGE = 1200.0
"""Seconds. A host waits for the slowest of its batch at each task, and is asked itself when that took longer."""
# By these Ansible's own code takes orders from a result: hosts for the inventory, groups, facts. No module of ours has
# one, and ansible-core takes some of them out of what a module returns.
_ORDERS = ("add_host", "add_group", "ansible_facts", "results", "exception")

# Ansible's main process loads this plugin and then forks a worker for each host and task. What it has loaded the
# workers have; else each of them would load all plugins of Jinja tests again for the first test in its templates.
Templar().template(trust_as_template("{{ omit is defined }}"))


def surveyed(name: Any, task_vars: Optional[Mapping[str, Any]], module: str,
             arguments: Mapping[str, Any]) -> Optional[dict[str, Any]]:
    """The result for a task of ``module`` in the survey that was registered as ``name``; None where the host has to be
    asked.

    By name, and what ends its time is judged here: for seven tasks a host, templates for both would be compiled anew.
    """
    variables = task_vars or {}
    survey = variables.get(name) if isinstance(name, str) else None
    answers = survey.get("answers") if isinstance(survey, Mapping) else None
    if not isinstance(answers, Mapping) or not _is_good(survey, variables):
        return None
    answer = unpack_answer(answers.get(module))
    if answer is None or not answer.serves(arguments):
        return None
    if any(name in _ORDERS or name.startswith("_") for name in answer.result):
        return None
    return dict(answer.result)


def _is_good(survey: Mapping[str, Any], variables: Mapping[str, Any]) -> bool:
    """Answers are for the play that asked, for twenty minutes, and until something has changed on the host."""
    return (_is_fresh(survey.get(ASKED_AT)) and survey.get(PLAY) == variables.get("ansible_play_name")
            and not any(_may_have_changed(variables.get(name)) for name in survey.get(UNTIL) or ()))


def _may_have_changed(result: Any) -> bool:
    """Whether a registered result is of a task that changed something, or included others, which may have."""
    return isinstance(result, Mapping) and (bool(result.get("changed")) or "include" in result)


def _is_fresh(asked_at: Any) -> bool:
    try:
        return 0 <= time.monotonic() - float(asked_at) <= MAX_AGE
    except (TypeError, ValueError):
        return False


@contextlib.contextmanager
def lost_host_fails(task: Any) -> Iterator[None]:
    """A host that does not answer fails the task where Ansible is told to ignore that, as site.yml does: it has nothing
    to go on with. So it is reported like other hosts that fail, and counts in max_fail_percentage, where Ansible counts
    no unreachable hosts. Elsewhere it stays unreachable."""
    try:
        yield
    except AnsibleConnectionFailure as error:
        if not task.ignore_unreachable:
            raise
        raise AnsibleActionFail(f"The host does not answer: {error}") from None


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
        known = None
        if survey and not self._task.async_val:
            known = surveyed(survey, task_vars, self.NAME, self.question(arguments))
        result = self.call(arguments, task_vars, wrap_async) if known is None else known
        if not wrap_async:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def question(self, arguments: dict[str, Any]) -> Mapping[str, Any]:
        """What a survey must have asked so that its answer is this task's."""
        return arguments

    def call(self, arguments: dict[str, Any], task_vars: Optional[dict[str, Any]], wrap_async: bool) -> dict[str, Any]:
        """One call of the module on the host."""
        with lost_host_fails(self._task):
            result: dict[str, Any] = self._execute_module(
                module_name=f"{COLLECTION}.{self.NAME}", module_args=arguments, task_vars=task_vars,
                wrap_async=wrap_async)
        return result
