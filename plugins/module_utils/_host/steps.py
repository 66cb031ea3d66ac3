# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Steps that the planners of ``host_config`` share. Pure: they are made here and carried out elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Callable, Optional

from .._core.host import Host
from .._core.journal import Journal
from .._core.plan import Call, RestoreFile, Step, WriteFile
from .state import JOURNAL, HostState, RecordFile

GENERATE_SECONDS = 900.0

Argv = tuple[str, ...]


def file_step(path: str, content: Optional[bytes], state: HostState) -> Iterator[Step]:
    """The step after which a file says ``content``, or is what it was before us (None)."""
    if content is None:
        if path in state.originals:
            yield RestoreFile(path)
    elif state.files[path].content != content:
        yield WriteFile(path, content)


def fingerprint(content: Optional[bytes]) -> Optional[str]:
    """What the record keeps of a generator's input; None for none."""
    return None if content is None else hashlib.sha256(content).hexdigest()


def generated(program: str, mark: Optional[str], commands: tuple[Argv, ...], why: str, state: HostState,
              check: Optional[Callable[[Host], None]] = None) -> list[Step]:
    """The step that makes a program's output follow its inputs, where it does not yet.

    ``check`` looks at the output and raises PassthroughError; only then the record notes that it follows.
    """
    if state.record.generated.get(program) == mark:
        return []

    def generate(host: Host) -> None:
        for argv in commands:
            host.run(argv, timeout=GENERATE_SECONDS)
        if check is not None:
            check(host)
        RecordFile(host).stamp(program, mark)

    return [Call(f"run {' and '.join(' '.join(argv) for argv in commands)} ({why})", generate)]


def owned(added: tuple[str, ...], state: HostState, steps: list[Step]) -> list[Step]:
    """Frames the loader's steps by notes on whose arguments are whose: while the files change, old and new ones count
    as ours, so that a run that dies there leaves none behind that nobody would remove."""
    old = state.record.arguments_added
    union = old + tuple(argument for argument in added if argument not in old)
    before = [_note_arguments(union)] if union != old else []
    after = [_note_arguments(added)] if added != union else []
    return [*before, *steps, *after]


def forget(path: str, why: str) -> Step:
    """Takes a file out of the journal without touching it."""
    return Call(f"leave {path} as it is ({why})", lambda host: Journal(host, JOURNAL).forget(path))


def _note_arguments(added: tuple[str, ...]) -> Step:
    return Call(f"record the kernel arguments that are ours: {' '.join(added) or 'none'}",
                lambda host: RecordFile(host).arguments(added))
