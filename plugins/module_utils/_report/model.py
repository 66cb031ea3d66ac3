# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the report of one host out of the results of the stages. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from .record import STAGES

SCHEMA_VERSION = 1


def outcome(failure: str, devices: Sequence[Mapping[str, Any]], check_mode: bool, quarantined: bool = False) -> str:
    """One word for the host: quarantined (it failed and was given back), failed, predicted, verified, unchecked, or
    incomplete."""
    if failure:
        return "quarantined" if quarantined else "failed"
    if check_mode:
        return "predicted"
    verdicts = {device["verdict"] for device in devices}
    if not verdicts:
        return "incomplete"
    if verdicts <= {"ok", "in-use"}:
        return "verified"
    return "unchecked" if verdicts <= {"ok", "in-use", "unchecked"} else "incomplete"


def build_report(hostname: str, arguments: Mapping[str, Any], check_mode: bool, generated_at: str) -> dict[str, Any]:
    """The report as plain data; docs/schemas/report.schema.json describes it.

    ``arguments`` are those of host_report: results of the modules, as they were registered. A stage that did not run
    is an empty dictionary.
    """
    stages = arguments.get("stages") or {}
    configured = stages.get("gpu_host") or {}
    failure = str(arguments.get("failure") or "")
    host = dict((arguments.get("host") or {}).get("host") or {})
    devices = list((stages.get("gpu_verify") or {}).get("devices") or [])
    accepted = set(arguments.get("accepted") or [])
    checks = [{**check, "accepted": check["id"] in accepted} for check in host.pop("checks", None) or []]
    return {
        "schema_version": SCHEMA_VERSION,
        "inventory_hostname": hostname,
        "generated_at": generated_at,
        "outcome": outcome(failure, devices, check_mode, bool(arguments.get("quarantined"))),
        "failure": failure,
        "after_failure": str(arguments.get("after_failure") or "").strip() if failure else "",
        "reboot_required": bool(arguments.get("reboot_required", configured.get("reboot_required"))),
        "host": host,
        "checks": checks,
        "gpus": list((arguments.get("gpus") or {}).get("gpus") or []),
        "devices": devices,
        "domains": _domains(stages.get("gpu_domain") or {}),
        "stages": {"gpu_preflight": _preflight(arguments),
                   **{name: _stage(stages.get(name) or {}) for name in STAGES[1:]}},
    }


def _stage(result: Mapping[str, Any]) -> dict[str, Any]:
    """What one stage did. A looped result holds its items under ``results``."""
    items = result.get("results") or [result]
    actions = [action for item in items for action in item.get("actions") or []]
    ran = bool(result) and not result.get("skipped")
    return {"ran": ran, "changed": bool(result.get("changed")), "actions": actions, "seconds": _seconds(items)}


def _preflight(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The stage that only reads has two results, those of host_info and gpu_info."""
    results = [arguments[name] for name in ("host", "gpus") if arguments.get(name)]
    return {"ran": bool(results), "changed": False, "actions": [], "seconds": _seconds(results)}


def _seconds(results: Sequence[Mapping[str, Any]]) -> Optional[float]:
    """What the modules say that they took; None where none does, as after a failure or a stage that did not run."""
    elapsed = [result["elapsed"] for result in results if isinstance(result.get("elapsed"), (int, float))]
    return round(sum(elapsed), 3) if elapsed else None


def _domains(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    domains = []
    for item in result.get("results") or []:
        if item.get("failed"):
            state = f"failed: {item.get('msg', 'no message')}"
        else:
            state = "defined now" if item.get("changed") else "defined, unchanged"
        vm = item.get("__gpu_domain_vm") or {}
        domains.append({"name": item.get("name") or vm.get("name", "unnamed"), "state": state,
                        "warnings": list(item.get("warnings") or []),
                        "features": list(item.get("features") or []),
                        "restart_required": bool(item.get("restart_required"))})
    return domains
