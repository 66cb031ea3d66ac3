# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of dkms_module: sends the module's source along, so that a host costs one round trip."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.module import require_usable, shorten
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.collect import collect
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.source import pack

SHIPPED_SOURCE = Path(__file__).resolve().parents[2] / "files" / "kmod"


class ActionModule(ActionBase):
    """nvgrace.passthrough.dkms_module"""

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        internal = sorted(name for name in arguments if name.startswith("_"))
        if internal:
            raise AnsibleActionFail(f"Unsupported parameters for dkms_module: {', '.join(internal)}.")
        if arguments.get("state", "present") != "absent":
            arguments.update(self._payload(arguments.get("source")))
        wrap_async = bool(self._task.async_val) and not self._connection.has_native_async
        result: dict[str, Any] = self._execute_module(
            module_name="nvgrace.passthrough.dkms_module", module_args=arguments, task_vars=task_vars,
            wrap_async=wrap_async)
        if not wrap_async:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def _payload(self, source: Optional[str]) -> dict[str, str]:
        try:
            require_usable(self._task.args)
            directory = self._find_needle("files", str(source)) if source else str(SHIPPED_SOURCE)
            tree = collect(directory)
        except (PassthroughError, AnsibleError) as error:
            # from None: Ansible would append the long message of the cause
            raise AnsibleActionFail(shorten(str(error), self._task.args)) from None
        return {"_source": pack(tree), "_source_sha256": tree.sha256}
