# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan steps for the files that make a binding persistent, common to binding and releasing."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Optional, Union

from .._core.host import Host
from .._core.journal import Journal
from .._core.plan import Call, RestoreFile, RunCommand, Step, WriteFile, apply_step
from .persist import MODULES_LOAD, modules_load_content, rule_path
from .record import load_records

# The modules-load.d file belongs to all devices together, so its original is not in the record of one of them.
SHARED_JOURNAL = "binding"


@dataclass(frozen=True)
class ManagedFile:
    """A file of ours as it is now: its content, and whether the journal holds an original to give back."""

    content: Optional[bytes]
    journaled: bool


@dataclass(frozen=True)
class SharedFiles:
    """What binding and releasing have to know of the host beside the functions themselves."""

    modules_load: ManagedFile
    other_modules: frozenset[str]
    udev: bool


def read_rule(host: Host, address: str) -> ManagedFile:
    """The udev rule file of one function."""
    return _read(host, address, rule_path(address))


def read_shared(host: Host, addresses: Collection[str]) -> SharedFiles:
    """``addresses`` are those the plan is about: the modules of all others stay in the shared file."""
    others = frozenset(record.module for address, record in load_records(host).items()
                       if address not in addresses and record.persistent)
    return SharedFiles(read_modules_load(host), others, has_udev(host))


def read_modules_load(host: Host) -> ManagedFile:
    """The modules-load.d file of the collection."""
    return _read(host, SHARED_JOURNAL, MODULES_LOAD)


def has_udev(host: Host) -> bool:
    """Whether a running udev has to be told of new rules."""
    return host.which("udevadm") is not None and host.exists("/run/udev/control")


def rule_steps(address: str, present: ManagedFile, wanted: Optional[bytes]) -> list[Step]:
    """Steps that give the rule file of a function the wanted content; None: as it was before us."""
    return _file_steps(address, rule_path(address), present, wanted)


def modules_load_steps(present: ManagedFile, modules: Iterable[str]) -> list[Step]:
    """Steps that make the shared file name exactly ``modules``; none: as it was before us."""
    names = list(modules)
    return _file_steps(SHARED_JOURNAL, MODULES_LOAD, present, modules_load_content(names) if names else None)


def udev_steps(shared: SharedFiles, rules_changed: bool) -> list[Step]:
    """Tells udev of changed rules, where it runs."""
    if not (rules_changed and shared.udev):
        return []
    return [RunCommand(("udevadm", "control", "--reload"), why="udev reads its rules again", timeout=30)]


def _read(host: Host, journal: str, path: str) -> ManagedFile:
    return ManagedFile(host.read_bytes(path), Journal(host, journal).original(path) is not None)


def _file_steps(journal: str, path: str, present: ManagedFile, wanted: Optional[bytes]) -> list[Step]:
    if wanted is None:
        return [_with_journal(journal, RestoreFile(path))] if present.journaled else []
    if present.content == wanted:
        return []
    return [_with_journal(journal, WriteFile(path, wanted))]


def _with_journal(name: str, step: Union[WriteFile, RestoreFile]) -> Step:
    """One plan touches the journals of several devices, so each step brings its own."""
    return Call(step.describe(), partial(_apply_with_journal, name, step))


def _apply_with_journal(name: str, step: Union[WriteFile, RestoreFile], host: Host) -> None:
    apply_step(host, step, Journal(host, name))
