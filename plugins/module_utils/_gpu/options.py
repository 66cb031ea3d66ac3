# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of gpu_driver as a value object."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from .._core.errors import PassthroughError
from .model import parse_address
from .variant import PlannedModule

_DRIVER_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
# What udev and the kernel take as a name: nothing in it has a meaning in a udev rule.
_GROUP_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")


@dataclass(frozen=True)
class DriverOptions:
    """The module's options after validation. ``timeout`` in seconds."""

    gpus: Optional[Sequence[Mapping[str, Any]]]
    driver: str = "auto"
    persistent: bool = True
    consent: frozenset[str] = frozenset()
    wait: bool = False
    timeout: float = 60
    planned: tuple[PlannedModule, ...] = ()
    device_group: Optional[str] = None
    check_mode: bool = False


def parse_options(params: Mapping[str, Any], check_mode: bool) -> DriverOptions:
    """Raises PassthroughError for values that the argument spec cannot refuse."""
    if params["driver"] != "auto" and not _DRIVER_NAME.fullmatch(params["driver"]):
        raise PassthroughError(f"{params['driver']!r} is no driver name: use auto, or a name such as vfio-pci.")
    if params["timeout"] < 1:
        raise PassthroughError(f"timeout is {params['timeout']}: give at least 1 second.")
    group = params["device_group"]
    if group is not None and not _GROUP_NAME.fullmatch(group):
        raise PassthroughError(f"{group!r} is no name of a group: give one such as vfio, or leave device_group out.")
    planned = tuple(PlannedModule(item["module"], item["driver"], tuple(item["aliases"]))
                    for item in params["planned_modules"] or ()) if check_mode else ()
    return DriverOptions(
        gpus=params["gpus"], driver=params["driver"], persistent=params["persistent"],
        consent=frozenset(parse_address(text) for text in params["group_consent"] or ()),
        wait=params["in_use"] == "wait", timeout=params["timeout"], planned=planned,
        device_group=group, check_mode=check_mode)
