# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of host_survey: sends what dkms_module needs along, as dkms_module's own plugin does."""

from __future__ import annotations

import time
from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.kmod import payload
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.stage import ASKED_AT, PLAY, UNTIL, lost_host_fails

MODULE = "nvgrace.passthrough.host_survey"
DKMS = "dkms_module"
PAYLOAD = "_payload"
VMS = "vms"
_LONGEST = 255  # characters of a variable's name


class ActionModule(ActionBase):
    """nvgrace.passthrough.host_survey"""

    _supports_check_mode = True

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if PAYLOAD in arguments:
            raise AnsibleActionFail(f"Unsupported parameters for host_survey: {PAYLOAD}.")
        arguments.update(self._payload(arguments))
        arguments[VMS] = _of_interest(arguments.get(VMS))
        until = _names(arguments.pop(UNTIL, None))
        asked_at = time.monotonic()
        with lost_host_fails(self._task):
            result: dict[str, Any] = self._execute_module(module_name=MODULE, module_args=arguments,
                                                          task_vars=task_vars)
        # whatever the host has said of these
        result.update({ASKED_AT: str(asked_at), PLAY: (task_vars or {}).get("ansible_play_name"), UNTIL: until})
        self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def _payload(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Without dkms_module where its options are no good: its own task says why."""
        wish = arguments.get(DKMS)
        if not isinstance(wish, dict):
            return {}
        try:
            return {PAYLOAD: payload(wish, self._find_needle)}
        except (AnsibleActionFail, PassthroughError):
            return {DKMS: None}


def _names(until: Any) -> list[str]:
    names = [] if until is None else until
    if not isinstance(names, list) or not all(isinstance(name, str) and len(name) <= _LONGEST and name.isidentifier()
                                              for name in names):
        raise AnsibleActionFail("host_survey: until must be a list of names of variables.")
    return list(map(str, names))


def _of_interest(vms: Any) -> list[dict[str, Any]]:
    """Name and autostart of each; the rest of a description is in its XML, which is rendered here. None at all where
    there is one that domain_xml would refuse: its own task says why."""
    try:
        return [{"name": str(vm["name"]), **({"autostart": boolean(vm["autostart"])} if vm.get("autostart") is not None
                                             else {})} for vm in vms or []]
    except (AttributeError, KeyError, TypeError):
        return []
