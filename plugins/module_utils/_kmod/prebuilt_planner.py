# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planner for hosts that are handed the module: no DKMS, no compiler, no key. Pure; it opens no file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from .._core.plan import Plan, RestoreFile, Step, WriteFile
from .facts import CERTIFICATE_PREFIX, HANDED_DIR, HostFacts, Request
from .mending import is_left_to_us, leave_dkms, leave_to_kernel, missing_to_leave
from .packages import Missing
from .planner import Decision, record_certificate, side, state_of
from .prebuilt import Prebuilt
from .signing import SETTINGS
from .steps import DkmsSteps


def plan_prebuilt(facts: HostFacts, request: Request, wanted: Mapping[str, Prebuilt], contents: Mapping[str, bytes],
                  certificates: frozenset[str], pending: Collection[str], steps: DkmsSteps) -> Decision:
    """Every kernel in ``wanted`` has that module, the other targets their own; DKMS has nothing of the package.

    ``contents`` are the modules that are not there yet, by kernel; a plan that is only shown needs none.
    ``certificates`` are the paths of the certificates that the host has already. ``pending`` are kernels whose module
    has yet to be built: the plan for them can only be shown.
    """
    todo: list[Step] = []
    for release in request.targets:
        if release not in wanted and release not in pending:
            todo += leave_to_kernel(facts, facts.kernel(release), steps)
    written = [release for release in wanted if not has_module(facts, release, wanted[release])] + list(pending)
    for release in written:
        path = module_path(facts, request, release)
        if facts.kernel(release).handed and path not in facts.journal:
            todo.append(steps.delete(path, "it is not in our journal"))
        todo.append(WriteFile(path, contents.get(release, b"")))
    todo += _certificate_steps(facts, wanted, certificates)
    away = leave_dkms(facts, request, steps)
    if SETTINGS in facts.journal:
        away.append(RestoreFile(SETTINGS))
    todo += away
    todo += [steps.depmod(kernel.release) for kernel in facts.kernels if kernel.exists and (
        kernel.release in written or away and is_left_to_us(kernel)
        or kernel.release in wanted and (kernel.stale_list or kernel.active is not None))]
    if facts.record is not None and (facts.record.sources or facts.record.certificate):
        todo.append(steps.save_record(replace(facts.record, sources={}, certificate=None), "record that DKMS is left"))
    before = {release: state_of(facts, release, request) for release in request.targets}
    states = {release: "installed" if release in wanted or release in pending else "in-tree"
              for release in request.targets}
    sources = sorted({entry.source_sha256 for entry in wanted.values()})
    keys = sorted({entry.certificate_sha256 for entry in wanted.values() if entry.certificate_sha256})
    return Decision(
        Plan(side(facts, before, facts.source_sha256, record_certificate(facts)),
             side(facts, states, ", ".join(sources) or None, ", ".join(keys) or None, planned=True), tuple(todo)),
        states, tuple(written), missing_to_leave(facts) if away else Missing())


def module_path(facts: HostFacts, request: Request, release: str) -> str:
    """Where a handed-out module goes."""
    return f"{facts.kernel(release).directory}/{HANDED_DIR}/{request.package.name}.ko"


def has_module(facts: HostFacts, release: str, entry: Prebuilt) -> bool:
    """Whether a kernel has exactly that module."""
    handed = facts.kernel(release).handed
    return handed is not None and handed.sha256 == entry.sha256


def _certificate_steps(facts: HostFacts, wanted: Mapping[str, Prebuilt], present: frozenset[str]) -> list[Step]:
    needed = {entry.certificate_path: entry.certificate for entry in wanted.values() if entry.certificate_path}
    old = [path for path in facts.journal if path.startswith(CERTIFICATE_PREFIX) and path not in needed]
    todo: list[Step] = [WriteFile(str(path), content) for path, content in needed.items() if path not in present]
    return todo + [RestoreFile(path) for path in old]
