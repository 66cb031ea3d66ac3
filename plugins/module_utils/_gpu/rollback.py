# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts functions back to what they were when a bind failed half-way, and says what could not be put back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.journal import Journal
from .._core.plan import apply_step
from . import nodes, ops, sysfs
from .binding import BindItem
from .files import SHARED_JOURNAL, ManagedFile, SharedFiles, udev_steps
from .persist import MODULES_LOAD, rule_path
from .record import forget_record, save_record

# A kernel call that hangs was given its time already; nothing is won by waiting as long again.
_SECONDS = 10.0


def roll_back(host: Host, items: Sequence[BindItem], shared: SharedFiles, error: PassthroughError) -> list[str]:
    """Undoes what the plan that failed with ``error`` may have done to ``items``; returns one sentence for each thing
    that remains."""
    remains: list[str] = []
    # The kernel still works on this one: what it does later is not undone by now.
    stuck = error.details.get("address") if "stuck_pid" in error.details else None
    for item in reversed(items):
        restored = _attempt(remains, _restore_driver, host, item)
        if item.function.address == stuck:
            remains.append(f"{stuck} loses its driver when process {error.details['stuck_pid']} ends: give it back "
                           "then.")
        # a function that did not get its driver back, or may lose it, keeps its record for the next try to release it
        elif restored:
            _attempt(remains, _restore_record, host, item)
    _attempt(remains, _restore_file, host, SHARED_JOURNAL, MODULES_LOAD, shared.modules_load)
    for step in udev_steps(shared, True):
        _attempt(remains, apply_step, host, step, None)
    for item in items:
        _attempt(remains, nodes.put_back, host, item.present_nodes)
    return remains


def _attempt(remains: list[str], function: Callable[..., None], *arguments: Any) -> bool:
    """Whether ``function`` worked; why not is added to ``remains``."""
    try:
        function(*arguments)
    except PassthroughError as error:
        remains.append(error.message)
        return False
    except OSError as error:
        remains.append(f"{error}.")
        return False
    return True


def _restore_driver(host: Host, item: BindItem) -> None:
    """Driver and override as they were before the plan; writes nothing where they still are."""
    before = item.function
    device = ops.Device(before.identity, before.group, min(item.timeout, _SECONDS))
    bound = sysfs.read_driver(host, before.address)
    if bound is not None and bound != before.driver:
        ops.unbind(host, device)
    if sysfs.read_function(host, before.address).driver_override != before.driver_override:
        ops.set_override(host, device, before.driver_override)
    if before.driver is not None:
        ops.bind(host, device, before.driver)


def _restore_record(host: Host, item: BindItem) -> None:
    address = item.function.address
    _restore_file(host, address, rule_path(address), item.rule)
    if item.record is None:
        forget_record(host, address)
    else:
        save_record(host, item.record)


def _restore_file(host: Host, journal: str, path: str, before: ManagedFile) -> None:
    """A file as it was before the plan: not ours yet, or ours with other content."""
    if not before.journaled:
        Journal(host, journal).restore(path)
    elif before.content is None:
        host.remove(path)
    elif host.read_bytes(path) != before.content:
        host.write_atomic(path, before.content)
