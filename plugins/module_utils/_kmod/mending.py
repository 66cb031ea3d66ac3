# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of the plans that takes modules out, and mends what DKMS itself stumbles over. Pure; it opens no file."""

from __future__ import annotations

from .._core.plan import RestoreFile, Step
from .facts import HANDED_DIR, HostFacts, KernelFacts, Package, Request
from .packages import Missing, missing_for_removal
from .steps import DkmsSteps


def leave_dkms(facts: HostFacts, request: Request, steps: DkmsSteps) -> list[Step]:
    """Takes all versions of the package out of DKMS and out of all kernels, with their source."""
    todo = _removal_steps(facts, steps)
    todo += [steps.delete(Package(request.package.name, version).source_dir, "the source")
             for version in _known_versions(facts, request)]
    if facts.versions or any(kernel.active or kernel.archived or is_leftover(kernel) for kernel in facts.kernels):
        todo.append(steps.delete_root())
    return todo


def missing_to_leave(facts: HostFacts) -> Missing:
    """DKMS itself, where it has builds to remove and is gone."""
    needs_dkms = any(path for kernel in facts.kernels for path in kernel.builds.values())
    return missing_for_removal(facts) if needs_dkms else Missing()


def take_out(facts: HostFacts, kernel: KernelFacts, steps: DkmsSteps) -> list[Step]:
    """Takes a handed-out module out of a kernel. It needs a depmod afterwards."""
    path = f"{kernel.directory}/{HANDED_DIR}/{steps.package.name}.ko"
    if path in facts.journal:
        return [RestoreFile(path)]
    return [steps.delete(path, "it is not in our journal")] if kernel.handed else []


def _known_versions(facts: HostFacts, request: Request) -> list[str]:
    versions = {known.version for known in facts.versions} | set(facts.record.sources if facts.record else ())
    if facts.source_sha256 is not None:
        versions.add(request.package.version)
    return sorted(versions)


def is_leftover(kernel: KernelFacts) -> bool:
    """A module file that an interrupted install left: DKMS would later give it back as if it were the kernel's."""
    return kernel.installed is not None and kernel.active is None and kernel.copy in ("same", "partial")


def is_left_to_us(kernel: KernelFacts) -> bool:
    """Whether something of ours is in the kernel's directory that ``dkms remove`` passes over, without a depmod."""
    if kernel.active is None:
        return kernel.archived or kernel.handed is not None or is_leftover(kernel)
    return not kernel.has_build(kernel.active)


def stray_file(kernel: KernelFacts, steps: DkmsSteps) -> list[Step]:
    """DKMS removes a module file only when it is the build that it has; every other one of ours is on us."""
    damaged = kernel.active is not None and kernel.copy != "same"
    if kernel.installed and (damaged or is_leftover(kernel)):
        return [steps.delete(kernel.installed, "left by an interrupted install")]
    return []


def _mend(facts: HostFacts, version: str, steps: DkmsSteps) -> list[Step]:
    """Makes a tree usable for DKMS, which refuses every action on one whose source or link is gone."""
    known = facts.tree_version(version)
    todo: list[Step] = []
    if known is not None and not known.has_conf:
        todo.append(steps.write_stub(version))
    return todo + link(facts, version, steps)


def link(facts: HostFacts, version: str, steps: DkmsSteps) -> list[Step]:
    """Makes DKMS know the source of a version."""
    known = facts.tree_version(version)
    if known is not None and known.link == "ok":
        return []
    todo: list[Step] = []
    if known is not None and known.link == "wrong":
        todo.append(steps.delete(f"{Package(steps.package.name, version).tree}/source",
                                 "it does not lead to the source"))
    return [*todo, steps.add(version)]


def leave_to_kernel(facts: HostFacts, kernel: KernelFacts, steps: DkmsSteps) -> list[Step]:
    """Takes what is ours out of a kernel that has the driver itself."""
    todo = stray_file(kernel, steps) + take_out(facts, kernel, steps)
    relist = bool(todo) or (kernel.installed is None and kernel.stale_list)
    for version, path in kernel.builds.items():
        if path:
            todo += [*_mend(facts, version, steps), steps.remove(version, kernel.release)]
    return [*todo, steps.depmod(kernel.release)] if relist else todo


def clear_kernels(facts: HostFacts, version: str, steps: DkmsSteps) -> list[Step]:
    """Takes away what ``dkms remove`` stumbles over: interrupted builds, and module files that are not its build."""
    todo: list[Step] = []
    for kernel in facts.kernels:
        if version in kernel.builds and not kernel.has_build(version):
            todo.append(drop_build(kernel, version, steps))
        if kernel.active in (None, version):
            todo += stray_file(kernel, steps)
    return todo


def drop_build(kernel: KernelFacts, version: str, steps: DkmsSteps) -> Step:
    """Deletes a build that was interrupted: DKMS would take it for one."""
    return steps.delete(f"{Package(steps.package.name, version).tree}/{kernel.release}", "an interrupted build")


def _removal_steps(facts: HostFacts, steps: DkmsSteps) -> list[Step]:
    todo = [step for kernel in facts.kernels for step in stray_file(kernel, steps)]
    for known in facts.versions:
        if any(kernel.has_build(known.version) for kernel in facts.kernels):
            todo += [*_mend(facts, known.version, steps), steps.remove(known.version)]
    return todo
