# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module apart from AnsibleModule: its options and its work, so that host_survey can ask several in one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Callable, Protocol

from .host import Host
from .module import Module
from .runner import LOCK_SECONDS, run_module

# For the action plugins; the module itself finds nothing in it.
SURVEY_OPTION: dict[str, Any] = {"survey": {"type": "str"}}


class Asked(Protocol):
    """What a stage's work takes of AnsibleModule."""

    params: dict[str, Any]
    check_mode: bool

    def warn(self, warning: str) -> None: ...

    def log(self, msg: str) -> None: ...


@dataclass(frozen=True)
class Stage:
    """``name`` is the module's without the collection's, ``options`` its argument spec, ``rules`` what AnsibleModule
    takes beside it (``required_if`` and the like). ``work`` returns the module's result and raises PassthroughError.
    ``locked`` is as run_module has it, and ``lock_seconds`` gives its seconds for the module's parameters."""

    name: str
    options: Mapping[str, Any]
    work: Callable[[Asked, Host], dict[str, Any]]
    rules: Mapping[str, Any] = field(default_factory=dict)
    locked: bool = True
    lock_seconds: Callable[[Mapping[str, Any]], float] = lambda _parameters: LOCK_SECONDS


def run_stage(stage: Stage) -> None:
    """The main() of the stage's module."""
    module = Module(argument_spec={**stage.options, **SURVEY_OPTION}, supports_check_mode=True, **stage.rules)
    del module.params["survey"]
    run_module(module, stage.work, locked=stage.locked, lock_seconds=stage.lock_seconds(module.params))
