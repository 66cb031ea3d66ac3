# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans: what will be done, as data. Planners make them without touching the host; ``apply_plan`` carries them out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Optional, Union

from .errors import PassthroughError
from .host import Host
from .journal import Journal


@dataclass(frozen=True)
class WriteFile:
    """A whole file; the original is kept in the journal first."""

    path: str
    content: bytes
    mode: int = 0o644

    def describe(self) -> str:
        return f"write {self.path}"


@dataclass(frozen=True)
class RemoveFile:
    """Removes a file; the original is kept in the journal first."""

    path: str

    def describe(self) -> str:
        return f"remove {self.path}"


@dataclass(frozen=True)
class RestoreFile:
    """Gives a file back the bytes, mode and owner that the journal holds, and forgets it."""

    path: str

    def describe(self) -> str:
        return f"restore {self.path}"


@dataclass(frozen=True)
class RunCommand:
    """A program with its arguments; ``why`` tells the operator what it is for. ``timeout`` in seconds."""

    argv: tuple[str, ...]
    why: str = ""
    timeout: float = 600
    ok: tuple[int, ...] = (0,)

    def describe(self) -> str:
        command = " ".join(self.argv)
        return f"run {command} ({self.why})" if self.why else f"run {command}"


@dataclass(frozen=True)
class WriteSysfs:
    """One write to a sysfs attribute."""

    path: str
    value: str
    why: str = ""

    def describe(self) -> str:
        text = f"write {self.value.strip() or 'newline'} to {self.path}"
        return f"{text} ({self.why})" if self.why else text


@dataclass(frozen=True)
class Call:
    """A step of one area that the common ones do not cover; ``text`` is what the operator reads."""

    text: str
    function: Callable[[Host], Any] = field(compare=False)

    def describe(self) -> str:
        return self.text


Step = Union[WriteFile, RemoveFile, RestoreFile, RunCommand, WriteSysfs, Call]


@dataclass(frozen=True)
class Plan:
    """The way from ``before`` to ``after``. Both are plain data and make the module's diff."""

    before: dict[str, Any]
    after: dict[str, Any]
    steps: tuple[Step, ...] = ()

    @property
    def changed(self) -> bool:
        return bool(self.steps)

    def actions(self) -> list[str]:
        return [step.describe() for step in self.steps]


def apply_step(host: Host, step: Step, journal: Optional[Journal]) -> None:
    """Carries out one step. File steps need a journal, which is saved before the file is touched."""
    if isinstance(step, (WriteFile, RemoveFile, RestoreFile)):
        if journal is None:
            raise PassthroughError(f"{step.path} cannot be changed without a journal.")
        if isinstance(step, RestoreFile):
            journal.restore(step.path)
            return
        journal.remember(step.path)
        if isinstance(step, WriteFile):
            host.write_atomic(step.path, step.content, step.mode)
        else:
            host.remove(step.path)
    elif isinstance(step, RunCommand):
        host.run(step.argv, timeout=step.timeout, ok=step.ok)
    elif isinstance(step, WriteSysfs):
        try:
            host.write_sysfs(step.path, step.value)
        except OSError as error:
            raise PassthroughError(f"The kernel refused to {step.describe()}: {error.strerror}.") from error
    else:
        step.function(host)


def apply_plan(host: Host, plan: Plan, journal: Optional[Journal] = None) -> list[str]:
    """Carries out all steps in order and returns what was done.

    A step that fails raises PassthroughError with ``actions`` (done so far) and ``changed`` in its details, so that
    the operator sees where the host stands.
    """
    done: list[str] = []
    for step in plan.steps:
        try:
            apply_step(host, step, journal)
        except PassthroughError as error:
            error.details.setdefault("actions", list(done))
            error.details.setdefault("changed", bool(done))
            raise
        except OSError as error:
            raise PassthroughError(f"Could not {step.describe()}: {error}.", actions=list(done),
                                   changed=bool(done)) from error
        done.append(step.describe())
    return done
