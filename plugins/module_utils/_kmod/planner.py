# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planner: from the facts and the request to the steps. Pure; it opens no file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Optional

from .._core.plan import Plan, Step
from .facts import HostFacts, KernelFacts, Package, Record, Request
from .packages import Missing, missing_for_build, missing_for_removal
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


def plan_present(facts: HostFacts, request: Request, tree: SourceTree, steps: DkmsSteps) -> Decision:
    """Every target kernel has the module: its own copy where that one is preferred and knows the ids, else ours."""
    own = [release for release in request.targets if suits_in_tree(facts.kernel(release), request)]
    ours = [release for release in request.targets if release not in own]
    todo: list[Step] = []
    for release in own:
        todo += _leave_to_kernel(facts, facts.kernel(release), steps)
    built: list[str] = []
    if ours:
        stale = request.force or _source_changed(facts, request, tree)
        served = ours + (_others_installed(facts, request) if stale else [])
        version = request.package.version
        built = [release for release in served if stale or not facts.kernel(release).has_build(version)]
        todo += _new_source(facts, request, tree, steps) if stale else _same_source(facts, request, steps, bool(built))
        for release in served:
            todo += _kernel_steps(facts.kernel(release), request, steps, stale)
    before = {release: state_of(facts, release, request) for release in request.targets}
    states = {release: "in-tree" if release in own else "installed" for release in request.targets}
    return Decision(
        Plan(_side(facts, before, facts.source_sha256),
             _side(facts, states, tree.sha256 if ours else facts.source_sha256, planned=True), tuple(todo)),
        states, tuple(built), missing_for_build(facts, built) if todo else Missing(),
        warnings=_foreign_copies(facts, request))


def plan_absent(facts: HostFacts, request: Request, steps: DkmsSteps) -> Decision:
    """No version of the package is left on the host, and its module is not in memory."""
    before = {release: state_of(facts, release, request) for release in request.targets}
    states = {release: "in-tree" if facts.kernel(release).in_tree else "absent" for release in request.targets}
    owned = [kernel for kernel in facts.kernels if kernel.active or _is_leftover(kernel)]
    todo: list[Step] = []
    busy = None
    if facts.loaded is not None and any(kernel.release == facts.running for kernel in owned):
        busy = _busy(facts, request)
        todo.append(steps.unload())
    todo += _removal_steps(facts, steps)
    todo += [steps.delete(Package(request.package.name, version).source_dir, "the source")
             for version in _known_versions(facts, request)]
    if facts.versions or owned or any(kernel.archived for kernel in facts.kernels):
        todo.append(steps.delete_root())
    todo += [steps.depmod(kernel.release) for kernel in facts.kernels
             if kernel.exists and (kernel.stale_list or _is_left_to_us(kernel))]
    if facts.record is not None:
        todo.append(steps.delete_empty(facts.record.new_directories))
        todo.append(steps.save_record(None, "forget the package"))
    needs_dkms = any(path for kernel in facts.kernels for path in kernel.builds.values())
    return Decision(
        Plan(_side(facts, before, facts.source_sha256), _side(facts, states, None, planned=True), tuple(todo)),
        states, missing=missing_for_removal(facts) if needs_dkms else Missing(), busy=busy)


def suits_in_tree(kernel: KernelFacts, request: Request) -> bool:
    """Whether the kernel's own driver is preferred and has every id that is required."""
    if not request.prefer_in_tree or kernel.in_tree is None:
        return False
    return request.required_ids <= ids_of(kernel.in_tree.info.aliases)


def state_of(facts: HostFacts, release: str, request: Request) -> str:
    """``in-tree``, ``installed``, ``built``, ``added`` or ``absent``; of any version where none is asked for."""
    kernel = facts.kernel(release)
    version = request.package.version or kernel.active or next(iter(kernel.builds), "")
    if kernel.active == version and kernel.copy == "same":
        return "installed"
    if kernel.active is None and suits_in_tree(kernel, request):
        return "in-tree"
    if kernel.has_build(version):
        return "built"
    known = facts.tree_version(version)
    return "added" if known is not None and known.link == "ok" else "absent"


def _source_changed(facts: HostFacts, request: Request, tree: SourceTree) -> bool:
    recorded = facts.record.sources.get(request.package.version) if facts.record else None
    return facts.source_sha256 != tree.sha256 or recorded != tree.sha256


def _others_installed(facts: HostFacts, request: Request) -> list[str]:
    """Kernels beside the targets that would lose their module when the old builds go."""
    return [kernel.release for kernel in facts.kernels
            if kernel.release not in request.targets and kernel.exists and kernel.headers
            and kernel.active == request.package.version]


def _known_versions(facts: HostFacts, request: Request) -> list[str]:
    versions = {known.version for known in facts.versions} | set(facts.record.sources if facts.record else ())
    if facts.source_sha256 is not None:
        versions.add(request.package.version)
    return sorted(versions)


def _is_leftover(kernel: KernelFacts) -> bool:
    """A module file that an interrupted install left: DKMS would later give it back as if it were the kernel's."""
    return kernel.installed is not None and kernel.active is None and kernel.copy in ("same", "partial")


def _is_left_to_us(kernel: KernelFacts) -> bool:
    """Whether something of ours is in the kernel's directory that ``dkms remove`` passes over, without a depmod."""
    if kernel.active is None:
        return kernel.archived or _is_leftover(kernel)
    return not kernel.has_build(kernel.active)


def _stray_file(kernel: KernelFacts, steps: DkmsSteps) -> list[Step]:
    """DKMS removes a module file only when it is the build that it has; every other one of ours is on us."""
    damaged = kernel.active is not None and kernel.copy != "same"
    if kernel.installed and (damaged or _is_leftover(kernel)):
        return [steps.delete(kernel.installed, "left by an interrupted install")]
    return []


def _mend(facts: HostFacts, version: str, steps: DkmsSteps) -> list[Step]:
    """Makes a tree usable for DKMS, which refuses every action on one whose source or link is gone."""
    known = facts.tree_version(version)
    todo: list[Step] = []
    if known is not None and not known.has_conf:
        todo.append(steps.write_stub(version))
    return todo + _link(facts, version, steps)


def _link(facts: HostFacts, version: str, steps: DkmsSteps) -> list[Step]:
    known = facts.tree_version(version)
    if known is not None and known.link == "ok":
        return []
    todo: list[Step] = []
    if known is not None and known.link == "wrong":
        todo.append(steps.delete(f"{Package(steps.package.name, version).tree}/source",
                                 "it does not lead to the source"))
    return [*todo, steps.add(version)]


def _leave_to_kernel(facts: HostFacts, kernel: KernelFacts, steps: DkmsSteps) -> list[Step]:
    todo = _stray_file(kernel, steps)
    relist = bool(todo) or (kernel.installed is None and kernel.stale_list)
    for version, path in kernel.builds.items():
        if path:
            todo += [*_mend(facts, version, steps), steps.remove(version, kernel.release)]
    return [*todo, steps.depmod(kernel.release)] if relist else todo


def _new_source(facts: HostFacts, request: Request, tree: SourceTree, steps: DkmsSteps) -> list[Step]:
    """Replaces the source and drops every build of the old one.

    The record has no hash meanwhile: a run that is interrupted anywhere in between starts here again.
    """
    version = request.package.version
    record = _record(facts)
    pending = replace(record, sources={**record.sources, version: ""})
    done = replace(record, sources={**record.sources, version: tree.sha256})
    todo = [steps.save_record(pending, "record a new source"), steps.write_source(tree)]
    if facts.tree_version(version) is not None:
        todo += [*_link(facts, version, steps), *_clear_kernels(facts, version, steps), steps.remove(version)]
    return [*todo, steps.save_record(done, "record the source's hash"), steps.add(version)]


def _same_source(facts: HostFacts, request: Request, steps: DkmsSteps, building: bool) -> list[Step]:
    record = _record(facts)
    todo = [steps.save_record(record, "record what a build will make")] if building and record != facts.record else []
    return todo + _link(facts, request.package.version, steps)


def _record(facts: HostFacts) -> Record:
    """The record with what does not exist now; what an earlier run found missing stays."""
    known = facts.record
    if known is None:
        return Record({}, facts.missing_keys, facts.missing_directories)
    more = [path for path in facts.missing_directories if path not in known.new_directories]
    return replace(known, new_directories=known.new_directories + tuple(more))


def _clear_kernels(facts: HostFacts, version: str, steps: DkmsSteps) -> list[Step]:
    """Takes away what ``dkms remove`` stumbles over: interrupted builds, and module files that are not its build."""
    todo: list[Step] = []
    for kernel in facts.kernels:
        if version in kernel.builds and not kernel.has_build(version):
            todo.append(_drop_build(kernel, version, steps))
        if kernel.active in (None, version):
            todo += _stray_file(kernel, steps)
    return todo


def _drop_build(kernel: KernelFacts, version: str, steps: DkmsSteps) -> Step:
    return steps.delete(f"{Package(steps.package.name, version).tree}/{kernel.release}", "an interrupted build")


def _kernel_steps(kernel: KernelFacts, request: Request, steps: DkmsSteps, stale: bool) -> list[Step]:
    version = request.package.version
    release = kernel.release
    if stale:
        return [steps.build(release), steps.install(release)]
    built = kernel.builds.get(version)
    if built is None:
        todo = [_drop_build(kernel, version, steps)] if version in kernel.builds else []
        return [*todo, steps.build(release), steps.install(release)]
    if kernel.active != version:
        return [*_stray_file(kernel, steps), steps.install(release)]
    if kernel.copy != "same":
        place = kernel.installed or f"{kernel.directory}/updates/dkms/{built.rpartition('/')[2]}"
        return [steps.copy_built(built, place), steps.depmod(release)]
    return [steps.depmod(release)] if kernel.stale_list else []


def _busy(facts: HostFacts, request: Request) -> Optional[str]:
    loaded = facts.loaded
    if loaded is None or not (loaded.devices or loaded.users):
        return None
    holder = ", ".join(loaded.devices) or f"{loaded.users} users"
    return (f"{request.package.module} is in use ({holder}): give the GPUs back with gpu_driver (state: released) "
            "first, then run again.")


def _removal_steps(facts: HostFacts, steps: DkmsSteps) -> list[Step]:
    todo = [step for kernel in facts.kernels for step in _stray_file(kernel, steps)]
    for known in facts.versions:
        if any(kernel.has_build(known.version) for kernel in facts.kernels):
            todo += [*_mend(facts, known.version, steps), steps.remove(known.version)]
    return todo


def _foreign_copies(facts: HostFacts, request: Request) -> tuple[str, ...]:
    found = []
    for kernel in map(facts.kernel, request.targets):
        if kernel.installed and kernel.active is None and not _is_leftover(kernel):
            effect = ("modprobe loads it instead of the kernel's own driver" if suits_in_tree(kernel, request)
                      else "DKMS keeps it aside and gives it back on removal")
            found.append(f"{kernel.installed} is not from this DKMS package: {effect}.")
    return tuple(found)


def _side(facts: HostFacts, states: dict[str, str], source: Optional[str], planned: bool = False) -> dict[str, Any]:
    kernels = {release: {"state": state,
                         "modules_dep": "stale" if not planned and facts.kernel(release).stale_list else "current"}
               for release, state in states.items()}
    return {"source_sha256": source, "kernels": kernels}
