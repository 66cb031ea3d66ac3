#!/usr/bin/env python3
# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries out a session of cosmic-ray in a copy of the checkout: mutant_runner.py SESSION MODULE SECONDS TEST...

cosmic-ray's own way is a new interpreter for each change, which takes several times as long as the tests. Here pytest
is loaded once, and each change gets a fork of it. The changed source exists in memory only.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# A change that makes a loop endless burns processor time; one that waits for ever does not. The first limit is the same
# on a busy machine, the second is for the latter only.
PROCESSOR_SECONDS = 60
PATIENCE = 1800
_OK, _FAILED = 0, 1


class ChangedSource(importlib.machinery.SourceFileLoader):
    """Gives the changed source of one file, and no file's cached code."""

    changed: tuple[str, bytes] = ("", b"")

    def get_data(self, path: str) -> bytes:
        return self.changed[1] if os.path.realpath(path) == self.changed[0] else Path(path).read_bytes()

    def path_stats(self, path: str) -> dict[str, float]:
        if os.path.realpath(path) == self.changed[0]:
            raise OSError("no cached code of a changed source")
        stats: dict[str, float] = super().path_stats(path)  # type: ignore[assignment]
        return stats


def run_tests(path: str, source: bytes, tests: Iterable[str], shown: bool = False) -> bool:
    """Whether the tests pass with this source in place of the file's. Their output is thrown away unless ``shown``."""
    pid = os.fork()
    if pid == 0:
        status = _FAILED
        try:
            os.setpgid(0, 0)
            signal.alarm(PATIENCE)
            resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if not shown:
                quiet = os.open(os.devnull, os.O_WRONLY)
                os.dup2(quiet, 1)
                os.dup2(quiet, 2)
            sys.dont_write_bytecode = True
            ChangedSource.changed = (path, source)
            details = [(importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
                       (ChangedSource, importlib.machinery.SOURCE_SUFFIXES)]
            sys.path_hooks.insert(0, importlib.machinery.FileFinder.path_hook(*details))
            sys.path_importer_cache.clear()
            import pytest
            status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))
        finally:
            os._exit(status)
    waited = os.waitpid(pid, 0)[1]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return waited == _OK


def main(session: str, module: str, seconds: str, *tests: str) -> int:
    sys.path.append(os.environ["MUTANTS_SITE"])
    # loaded once, for all children
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401
    from ansible.module_utils import basic  # noqa: F401
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator
    from cosmic_ray.work_db import WorkDB, use_db
    from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

    deadline = time.monotonic() + float(seconds)
    path = os.path.realpath(module)
    source = Path(path).read_text(encoding="utf-8")
    if not run_tests(path, source.encode(), tests, shown=True):
        print(f"The tests of {module} fail without any change.", file=sys.stderr)
        return 1
    with use_db(session, WorkDB.Mode.open) as database:
        for item in list(database.pending_work_items):
            if time.monotonic() > deadline:
                break
            (mutation,) = item.mutations
            operator = get_operator(mutation.operator_name)(**mutation.operator_args)
            try:
                changed = mutate_code(source, operator, mutation.occurrence)
            except AttributeError:  # cosmic-ray cannot change an exception that is named with its module
                database.set_result(item.job_id, WorkResult(WorkerOutcome.SKIPPED))
                continue
            if changed is None:
                database.set_result(item.job_id, WorkResult(WorkerOutcome.NO_TEST))
                continue
            passed = run_tests(path, changed.encode(), tests)
            outcome = TestOutcome.SURVIVED if passed else TestOutcome.KILLED
            database.set_result(item.job_id, WorkResult(WorkerOutcome.NORMAL, test_outcome=outcome,
                                                        diff=difference(source, changed)))
    return 0


def difference(before: str, after: str) -> str:
    import difflib

    return "\n".join(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
