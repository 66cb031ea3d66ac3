# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Registered results by the names of their variables.

A result as the value of an argument goes through Ansible's templates whole, every number of every GPU, and for each
task that takes it; in a run that has nothing to do this is what two tasks spend most of their time with. A registered
result holds no templates, so that its name is enough.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError

REGISTERED = "registered"


def registered_results(names: Any, options: Collection[str], task_vars: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The results that ``names`` (option -> name of a variable) stand for, without those that no task has registered.

    Raises PassthroughError for an option that is none of ``options``, and for a variable that holds no result.
    """
    if not isinstance(names, Mapping):
        raise PassthroughError("registered must be a dictionary of options and names of variables.")
    unknown = sorted(set(map(str, names)) - set(options))
    if unknown:
        raise PassthroughError(f"registered does not know {', '.join(unknown)}: it takes {', '.join(options)}.")
    found = {}
    for option, name in names.items():
        if not isinstance(name, str) or not name.isidentifier() or not isinstance(task_vars.get(name, {}), Mapping):
            raise PassthroughError(f"registered: {option} must be the name of a variable in which a task has "
                                   "registered its result.")
        if name in task_vars:
            found[str(option)] = dict(task_vars[name])
    return found
