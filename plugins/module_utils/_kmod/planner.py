# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planner: from the facts and the request to the steps. Pure; it opens no file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Optional

from .._core.errors import PassthroughError
from .._core.plan import Plan, RestoreFile, Step
from .facts import HANDED_DIR, HostFacts, KernelFacts, Record, Request
from .mending import (
    clear_kernels,
    drop_build,
    is_left_to_us,
    is_leftover,
    leave_dkms,
    leave_to_kernel,
    link,
    missing_to_leave,
    stray_file,
    take_out,
)
from .packages import Missing, missing_for_build
from .signing import Signing, signed_by
from .source import SourceTree, ids_of
from .steps import DkmsSteps


@dataclass(frozen=True)
class Decision:
    """The plan, what stands in its way, and the state that each target kernel will have.

    ``built`` are the kernels that need a build, ``busy`` is a sentence when the module cannot leave memory now.
    """

    plan: Plan
    states: dict[str, str]
    built: tuple[str, ...] = ()
    missing: Missing = Missing()
    busy: Optional[str] = None
    warnings: tuple[str, ...] = ()


def plan_present(facts: HostFacts, request: Request, tree: SourceTree, steps: DkmsSteps,
                 signing: Signing) -> Decision:
    """Every target kernel has the module: its own copy where that one is preferred and knows the ids, else ours.

    For an export every target kernel has a build, and is left as it is.
    """
    own = [release for release in request.targets if suits_in_tree(facts.kernel(release), request)]
    ours = [release for release in request.targets if release not in own]
    todo: list[Step] = []
    for release in own:
        todo += leave_to_kernel(facts, facts.kernel(release), steps)
    built: list[str] = []
    if ours:
        _refuse_unsigned_kernels(facts, ours, signing)
        stale = request.force or _source_changed(facts, request, tree) or _key_changed(facts, request, signing)
        served = ours + (_others_installed(facts, request) if stale else [])
        version = request.package.version
        built = [release for release in served if stale or not facts.kernel(release).has_build(version)]
        todo += signing.steps()
        todo += (_new_source(facts, request, tree, steps, signing) if stale
                 else _same_source(facts, request, steps, bool(built)))
        for release in served:
            todo += _kernel_steps(facts, facts.kernel(release), request, steps, stale)
    before = {release: state_of(facts, release, request) for release in request.targets}
    states = {release: _wanted_state(facts, release, request, release in own) for release in request.targets}
    return Decision(
        Plan(side(facts, before, facts.source_sha256, record_certificate(facts)),
             side(facts, states, tree.sha256 if ours else facts.source_sha256,
                  signing.own_sha256 if ours else record_certificate(facts), planned=True), tuple(todo)),
        states, tuple(built), missing_for_build(facts, built, request.export) if todo else Missing(),
        warnings=_foreign_copies(facts, request) + (() if request.export else _left_behind(facts, ours)))


def plan_absent(facts: HostFacts, request: Request, steps: DkmsSteps) -> Decision:
    """No version of the package is left on the host, and its module is not in memory."""
    before = {release: state_of(facts, release, request) for release in request.targets}
    states = {release: "in-tree" if facts.kernel(release).in_tree else "absent" for release in request.targets}
    owned = [kernel for kernel in facts.kernels if kernel.active or kernel.handed or is_leftover(kernel)]
    todo: list[Step] = []
    busy = None
    if facts.loaded is not None and any(kernel.release == facts.running for kernel in owned):
        busy = _busy(facts, request)
        todo.append(steps.unload())
    for kernel in facts.kernels:
        todo += take_out(facts, kernel, steps)
    todo += leave_dkms(facts, request, steps)
    todo += [steps.depmod(kernel.release) for kernel in facts.kernels
             if kernel.exists and (kernel.stale_list or is_left_to_us(kernel))]
    handed = [f"{kernel.directory}/{HANDED_DIR}/" for kernel in facts.kernels]
    todo += [RestoreFile(path) for path in facts.journal if not path.startswith(tuple(handed))]
    if facts.record is not None:
        todo.append(steps.delete_empty(facts.record.new_directories))
        todo.append(steps.save_record(None, "forget the package"))
    return Decision(
        Plan(side(facts, before, facts.source_sha256, record_certificate(facts)),
             side(facts, states, None, None, planned=True), tuple(todo)),
        states, missing=missing_to_leave(facts), busy=busy)


def plan_nothing(facts: HostFacts, request: Request) -> Decision:
    """No GPU of the host needs the driver: no kernel gets it, and what there is stays."""
    states = {release: state_of(facts, release, request) for release in request.targets}
    same = side(facts, states, facts.source_sha256, record_certificate(facts))
    return Decision(Plan(same, same, ()), states)


def suits_in_tree(kernel: KernelFacts, request: Request) -> bool:
    """Whether the kernel's own driver is preferred and has every id that is required."""
    if not request.prefer_in_tree or kernel.in_tree is None:
        return False
    return request.required_ids <= ids_of(kernel.in_tree.info.aliases)


def state_of(facts: HostFacts, release: str, request: Request) -> str:
    """``in-tree``, ``installed``, ``built``, ``added`` or ``absent``; of any version where none is asked for."""
    kernel = facts.kernel(release)
    version = request.package.version or kernel.active or next(iter(kernel.builds), "")
    if kernel.active == version and kernel.copy == "same" or kernel.active is None and kernel.handed:
        return "installed"
    if kernel.active is None and suits_in_tree(kernel, request):
        return "in-tree"
    if kernel.has_build(version):
        return "built"
    known = facts.tree_version(version)
    return "added" if known is not None and known.link == "ok" else "absent"


def record_certificate(facts: HostFacts) -> Optional[str]:
    """SHA-256 of the operator's certificate that the builds on the host are signed with."""
    return facts.record.certificate if facts.record else None


def _wanted_state(facts: HostFacts, release: str, request: Request, in_tree: bool) -> str:
    if in_tree:
        return "in-tree"
    return "built" if request.export and facts.kernel(release).active != request.package.version else "installed"


def _refuse_unsigned_kernels(facts: HostFacts, releases: list[str], signing: Signing) -> None:
    for release in releases:
        if signing.own and facts.kernel(release).signs is False:
            raise PassthroughError(f"Kernel {release} was built without support for signed modules (its headers have "
                                   "no CONFIG_MODULE_SIG_HASH), so DKMS signs nothing for it: leave signing_key and "
                                   "signing_certificate out.")


def _key_changed(facts: HostFacts, request: Request, signing: Signing) -> bool:
    """Whether builds are there that another pair has signed than the one that is asked for.

    The record tells when the operator changes the pair; a module's own signature tells what another hand has built.
    With DKMS's own pair only the first counts: a host that cannot sign would never be done.
    """
    if record_certificate(facts) != signing.own_sha256:
        return True
    return signing.own and any(signed_by(facts.kernel(release).built_info, signing.certificate) is False
                               for release in request.targets
                               if facts.kernel(release).has_build(request.package.version))


def _source_changed(facts: HostFacts, request: Request, tree: SourceTree) -> bool:
    recorded = facts.record.sources.get(request.package.version) if facts.record else None
    return facts.source_sha256 != tree.sha256 or recorded != tree.sha256


def _others_installed(facts: HostFacts, request: Request) -> list[str]:
    """Kernels beside the targets that would lose their module when the old builds go."""
    return [kernel.release for kernel in facts.kernels
            if kernel.release not in request.targets and kernel.exists and kernel.headers
            and kernel.active == request.package.version]


def _new_source(facts: HostFacts, request: Request, tree: SourceTree, steps: DkmsSteps,
                signing: Signing) -> list[Step]:
    """Replaces the source and drops every build of the old one.

    The record has no hash meanwhile: a run that is interrupted anywhere in between starts here again.
    """
    version = request.package.version
    record = _record(facts)
    pending = replace(record, sources={**record.sources, version: ""})
    done = replace(record, sources={**record.sources, version: tree.sha256}, certificate=signing.own_sha256)
    todo = [steps.save_record(pending, "record a new source"), steps.write_source(tree)]
    if facts.tree_version(version) is not None:
        todo += [*link(facts, version, steps), *clear_kernels(facts, version, steps), steps.remove(version)]
    return [*todo, steps.save_record(done, "record the source's hash"), steps.add(version)]


def _same_source(facts: HostFacts, request: Request, steps: DkmsSteps, building: bool) -> list[Step]:
    record = _record(facts)
    todo = [steps.save_record(record, "record what a build will make")] if building and record != facts.record else []
    return todo + link(facts, request.package.version, steps)


def _record(facts: HostFacts) -> Record:
    """The record with what does not exist now; what an earlier run found missing stays."""
    known = facts.record
    if known is None:
        return Record({}, facts.missing_keys, facts.missing_directories)
    more = [path for path in facts.missing_directories if path not in known.new_directories]
    return replace(known, new_directories=known.new_directories + tuple(more))


def _kernel_steps(facts: HostFacts, kernel: KernelFacts, request: Request, steps: DkmsSteps,
                  stale: bool) -> list[Step]:
    version = request.package.version
    release = kernel.release
    build_only = request.export and kernel.active != version
    # A module that was handed out stays until there is a build to take its place.
    handed = [] if build_only else take_out(facts, kernel, steps)
    built = kernel.builds.get(version)
    if stale or built is None:
        interrupted = not stale and version in kernel.builds
        todo = [drop_build(kernel, version, steps)] if interrupted else []
        # DKMS would take a file that is not its build for the kernel's own, and give it back on removal.
        old = [steps.delete(kernel.installed, "its build is gone")] if (
            not stale and kernel.active == version and kernel.installed) else []
        return [*todo, steps.build(release), *([] if build_only else [*handed, *old, steps.install(release)])]
    if build_only:
        return []
    if kernel.active != version:
        return [*handed, *stray_file(kernel, steps), steps.install(release)]
    if kernel.copy != "same":
        place = kernel.installed or f"{kernel.directory}/updates/dkms/{built.rpartition('/')[2]}"
        return [*handed, steps.copy_built(built, place), steps.depmod(release)]
    return [*handed, steps.depmod(release)] if handed or kernel.stale_list else []


def _busy(facts: HostFacts, request: Request) -> Optional[str]:
    loaded = facts.loaded
    if loaded is None or not (loaded.devices or loaded.users):
        return None
    holder = ", ".join(loaded.devices) or f"{loaded.users} users"
    return (f"{request.package.module} is in use ({holder}): give the GPUs back with gpu_driver (state: released) "
            "first, then run again.")


def _foreign_copies(facts: HostFacts, request: Request) -> tuple[str, ...]:
    found = []
    for kernel in map(facts.kernel, request.targets):
        if kernel.installed and kernel.active is None and not is_leftover(kernel):
            effect = ("modprobe loads it instead of the kernel's own driver" if suits_in_tree(kernel, request)
                      else "DKMS keeps it aside and gives it back on removal")
            found.append(f"{kernel.installed} is not from this DKMS package: {effect}.")
    return tuple(found)


def _left_behind(facts: HostFacts, releases: list[str]) -> tuple[str, ...]:
    """DKMS builds for a new kernel when its headers come, and without a package that follows they never do."""
    packages = {facts.kernel(release).follower for release in releases if facts.kernel(release).headers}
    return tuple(f"{package} is not installed: a kernel upgrade brings no headers, so that DKMS builds no module for "
                 "the new kernel; install it." for package in sorted(filter(None, packages)))


def side(facts: HostFacts, states: dict[str, str], source: Optional[str], certificate: Optional[str],
         planned: bool = False) -> dict[str, Any]:
    """One side of the diff. ``certificate`` is the SHA-256 of the operator's, None where DKMS's pair signs."""
    kernels = {release: {"state": state,
                         "modules_dep": "stale" if not planned and facts.kernel(release).stale_list else "current"}
               for release, state in states.items()}
    return {"source_sha256": source, "signing_certificate_sha256": certificate, "kernels": kernels}
