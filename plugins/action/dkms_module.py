# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of dkms_module: sends the module's source along, so that a host costs one round trip.

Exported modules come back within the result and are kept in a directory here; a host that is handed one gets a second
call only where it has another.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.utils.display import Display

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.module import readable, shorten
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.prebuilt import (
    Prebuilt,
    from_json,
    pack_modules,
    unpack_modules,
)
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.store import read_content, read_store, save
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.kmod import (
    identity,
    local_directory,
    payload,
)
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.stage import StageAction
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.ticker import Ticker

SECONDS = 15.0


class ActionModule(StageAction):
    """nvgrace.passthrough.dkms_module"""

    NAME = "dkms_module"

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        internal = sorted(name for name in self._task.args if name.startswith("_"))
        if internal:
            raise AnsibleActionFail(f"Unsupported parameters for dkms_module: {', '.join(internal)}.")
        try:
            result = super().run(tmp, task_vars)
            _tell_enrolment(_host(task_vars), result)
            return result
        except PassthroughError as error:
            raise AnsibleActionFail(shorten(error.message, self._task.args)) from None

    def question(self, arguments: dict[str, Any]) -> Mapping[str, Any]:
        if arguments.get("state", "present") != "present":
            return arguments
        return {**arguments, **identity(arguments, self._find_needle)}

    def call(self, arguments: dict[str, Any], task_vars: Optional[dict[str, Any]], wrap_async: bool) -> dict[str, Any]:
        state = arguments.get("state", "present")
        exchange = state == "exported" or (state == "present" and arguments.get("prebuilt") is not None)
        if exchange and wrap_async:
            raise AnsibleActionFail("dkms_module cannot exchange modules with the controller in the background: leave "
                                    "async out with state=exported and with prebuilt.")
        if state == "exported":
            return self._export(arguments, task_vars)
        if exchange:
            return self._hand_out(arguments, task_vars)
        if state != "absent":
            arguments = {**arguments, **payload(arguments, self._find_needle)}
        return self._call(arguments, task_vars, wrap_async)

    def _call(self, arguments: dict[str, Any], task_vars: Optional[dict[str, Any]],
              wrap_async: bool = False) -> dict[str, Any]:
        host, display = _host(task_vars), Display()

        def tell(elapsed: float) -> None:
            display.display(f"{host}: dkms_module is at {elapsed:.0f} seconds; a build may take some minutes.")

        with Ticker(tell, SECONDS):
            return super().call(arguments, task_vars, wrap_async)

    def _export(self, arguments: dict[str, Any], task_vars: Optional[dict[str, Any]]) -> dict[str, Any]:
        directory = local_directory(arguments, "dest")
        have = {f"{entry.kernel}/{entry.machine}": entry.sha256 for entry in read_store(directory)
                if os.path.isfile(os.path.join(directory, entry.kernel, entry.machine, entry.file))}
        sent = {**arguments, **payload(arguments, self._find_needle), "_have": have}
        result = self._call(sent, task_vars)
        contents = unpack_modules(result.pop("_modules", None))
        entries = [from_json(value, "The builder's answer") for value in result.get("exports", [])]
        if not self._task.check_mode:
            written = [save(directory, entry, contents.get(entry.kernel)) for entry in entries]
            result["changed"] = bool(result.get("changed")) or any(written)
        return result

    def _hand_out(self, arguments: dict[str, Any], task_vars: Optional[dict[str, Any]]) -> dict[str, Any]:
        directory = local_directory(arguments, "prebuilt")
        sent = {**arguments, **payload(arguments, self._find_needle)}
        result = self._call(sent, task_vars)
        wanted = result.pop("_wanted", None)
        if wanted:
            entries = [from_json(value, "The manifest") for value in sent["_prebuilt"]]
            contents = {entry.kernel: read_content(directory, entry) for entry in entries if _is_wanted(entry, wanted)}
            asked = result.get("elapsed") or 0
            result = self._call({**sent, "_modules": pack_modules(contents)}, task_vars)
            if "elapsed" in result:
                result["elapsed"] = round(result["elapsed"] + asked, 3)
        return result


def _is_wanted(entry: Prebuilt, wanted: list[dict[str, str]]) -> bool:
    return {"kernel": entry.kernel, "machine": entry.machine} in wanted


def _host(task_vars: Optional[dict[str, Any]]) -> str:
    return str((task_vars or {}).get("inventory_hostname", "the host"))


def _tell_enrolment(host: str, result: Mapping[str, Any]) -> None:
    """What has to be done at the console is printed step by step, by whichever task and run finds that it is due."""
    signing = result.get("signing")
    steps = signing.get("enrolment_steps") if isinstance(signing, Mapping) else None
    if steps:
        lines = [f"{host}: this kernel loads signed modules only and does not trust the certificate "
                 f"{signing.get('certificate_subject')}. Until it is enrolled at the console the module does not load:",
                 *(f"  {number}. {step}" for number, step in enumerate(steps, 1))]
        Display().display("\n".join(map(readable, lines)))
