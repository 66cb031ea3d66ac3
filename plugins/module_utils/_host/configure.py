# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries a plan for the host out, or only tells it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .._core.host import Host
from .._core.journal import Journal
from .._core.plan import apply_plan
from .._core.runner import plan_result
from .arguments import Platform, kernel_arguments
from .planner import plan_host, reboot_reasons, service_restarts, untested, until_boot
from .settings import HostSettings, check_room
from .state import JOURNAL, HostState, read_state
from .until_boot import note_until_boot


def configure_host(host: Host, settings: HostSettings, check_mode: bool) -> dict[str, Any]:
    """The module's result. In check mode nothing is changed and the plan is the same."""
    arguments = bool(settings.kernel_arguments or settings.kernel_settings)
    before = read_state(host, arguments, settings.modprobe_options)
    settings = _with_arguments(settings, before)
    plan = plan_host(settings, before)
    now = before
    if check_mode or not plan.changed:
        actions = plan.actions()
    else:
        note_until_boot(host, until_boot(settings, before))  # first: no later run could tell it from the files
        actions = apply_plan(host, plan, Journal(host, JOURNAL))
        now = read_state(host, arguments, settings.modprobe_options)
    reasons = reboot_reasons(settings, before, now)
    return {**plan_result(plan, actions), "bootloader": before.bootloader.kind, "reboot_required": bool(reasons),
            "reboot_reasons": reasons, "restart_services": service_restarts(settings, now),
            "kernel_arguments": list(settings.kernel_arguments), "untested": untested(settings, before)}


def _with_arguments(settings: HostSettings, state: HostState) -> HostSettings:
    """The settings with the typed wishes among the kernel arguments."""
    platform = Platform(state.processor, state.has_iommu, state.cmdline)
    arguments = kernel_arguments(settings.kernel_arguments, dict(settings.kernel_settings), platform)
    check_room(arguments)
    return replace(settings, kernel_arguments=arguments)
