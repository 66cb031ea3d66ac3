# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of dkms_module: sends the module's source along, so that a host costs one round trip.

Exported modules come back within the result and are kept in a directory here; a host that is handed one gets a second
call only where it has another.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Optional

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.module import require_usable, shorten
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.collect import collect
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.prebuilt import (
    Prebuilt,
    from_json,
    pack_modules,
    unpack_modules,
)
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.source import SourceTree, pack
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.store import read_content, read_store, save
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.ticker import Ticker

SECONDS = 15.0
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
        wrap_async = bool(self._task.async_val) and not self._connection.has_native_async
        try:
            result = self._carry_out(arguments, task_vars, wrap_async)
        except PassthroughError as error:
            raise AnsibleActionFail(shorten(error.message, self._task.args)) from None
        if not wrap_async:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def _carry_out(self, arguments: dict[str, Any], task_vars: Optional[dict[str, Any]],
                   wrap_async: bool) -> dict[str, Any]:
        state = arguments.get("state", "present")
        exchange = state == "exported" or (state == "present" and arguments.get("prebuilt"))
        if exchange and wrap_async:
            raise AnsibleActionFail("dkms_module cannot exchange modules with the controller in the background: leave "
                                    "async out with state=exported and with prebuilt.")
        if state == "exported":
            return self._export(arguments, task_vars)
        if exchange:
            return self._hand_out(arguments, task_vars)
        if state != "absent":
            arguments.update(_payload(self._tree(arguments)))
        return self._call(arguments, task_vars, wrap_async)

    def _call(self, arguments: dict[str, Any], task_vars: Optional[dict[str, Any]],
              wrap_async: bool = False) -> dict[str, Any]:
        host, display = str((task_vars or {}).get("inventory_hostname", "the host")), Display()

        def tell(elapsed: float) -> None:
            display.display(f"{host}: dkms_module is at {elapsed:.0f} seconds; a build may take some minutes.")

        with Ticker(tell, SECONDS):
            result: dict[str, Any] = self._execute_module(
                module_name="nvgrace.passthrough.dkms_module", module_args=arguments, task_vars=task_vars,
                wrap_async=wrap_async)
        return result

    def _export(self, arguments: dict[str, Any], task_vars: Optional[dict[str, Any]]) -> dict[str, Any]:
        directory = _directory(arguments, "dest")
        have = {f"{entry.kernel}/{entry.machine}": entry.sha256 for entry in read_store(directory)
                if os.path.isfile(os.path.join(directory, entry.kernel, entry.machine, entry.file))}
        result = self._call({**arguments, **_payload(self._tree(arguments)), "_have": have}, task_vars)
        contents = unpack_modules(result.pop("_modules", None))
        entries = [from_json(value, "The builder's answer") for value in result.get("exports", [])]
        if not self._task.check_mode:
            written = [save(directory, entry, contents.get(entry.kernel)) for entry in entries]
            result["changed"] = bool(result.get("changed")) or any(written)
        return result

    def _hand_out(self, arguments: dict[str, Any], task_vars: Optional[dict[str, Any]]) -> dict[str, Any]:
        directory = _directory(arguments, "prebuilt")
        tree = self._tree(arguments)
        entries = read_store(directory)
        sent = {**arguments, "_source_sha256": tree.sha256, "_aliases": list(tree.aliases()),
                "_prebuilt": [entry.as_json() for entry in entries]}
        result = self._call(sent, task_vars)
        wanted = result.pop("_wanted", None)
        if wanted:
            contents = {entry.kernel: read_content(directory, entry) for entry in entries if _is_wanted(entry, wanted)}
            asked = result.get("elapsed") or 0
            result = self._call({**sent, "_modules": pack_modules(contents)}, task_vars)
            if "elapsed" in result:
                result["elapsed"] = round(result["elapsed"] + asked, 3)
        return result

    def _tree(self, arguments: dict[str, Any]) -> SourceTree:
        source = arguments.get("source")
        try:
            require_usable(self._task.args)
            directory = self._find_needle("files", str(source)) if source else str(SHIPPED_SOURCE)
            return collect(directory)
        except (PassthroughError, AnsibleError) as error:
            # from None: Ansible would append the long message of the cause
            raise AnsibleActionFail(shorten(str(error), self._task.args)) from None


def _payload(tree: SourceTree) -> dict[str, str]:
    return {"_source": pack(tree), "_source_sha256": tree.sha256}


def _directory(arguments: dict[str, Any], option: str) -> str:
    directory = os.path.expanduser(str(arguments.get(option) or ""))
    if not os.path.isabs(directory) or "\0" in directory:
        raise AnsibleActionFail(f"{option!r} must be an absolute path of a directory on the controller.")
    return directory


def _is_wanted(entry: Prebuilt, wanted: list[dict[str, str]]) -> bool:
    return {"kernel": entry.kernel, "machine": entry.machine} in wanted
