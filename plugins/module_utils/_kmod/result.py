# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What dkms_module returns about a host, from the facts and the decision. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from .facts import HostFacts, KernelFacts, ModInfo, Request
from .planner import Decision


def describe(facts: HostFacts, request: Request, decision: Decision, planned: bool, seconds: Mapping[str, float],
             aliases: Optional[Sequence[str]]) -> dict[str, Any]:
    """``planned``: the facts are those before the steps. ``aliases`` are those that a new build will have, None where
    the module is removed."""
    kernels = [_kernel_result(facts, release, decision, planned, seconds) for release in request.targets]
    leader = next((entry for entry in kernels if entry["kernel"] == facts.running), kernels[0] if kernels else None)
    provides = []
    if aliases is not None and leader is not None and not request.export:
        found = effective_info(facts.kernel(leader["kernel"]), leader["state"]).aliases
        if planned and leader["state"] == "installed":
            found = tuple(aliases)
        if found:
            provides = [{"module": request.package.module, "driver": request.package.module, "aliases": list(found)}]
    return {"name": request.package.name, "version": request.package.version or None, "kernels": kernels,
            "provides": provides,
            "other_versions": [known.version for known in facts.versions
                               if aliases is not None and known.version != request.package.version],
            "reload_required": _reload_required(facts, decision, planned)}


def _kernel_result(facts: HostFacts, release: str, decision: Decision, planned: bool,
                   seconds: Mapping[str, float]) -> dict[str, Any]:
    kernel = facts.kernel(release)
    state = decision.states[release]
    unknown = planned and release in decision.built
    info = ModInfo() if unknown else effective_info(kernel, state)
    paths = {"in-tree": kernel.in_tree.path if kernel.in_tree else None, "installed": kernel.place,
             "built": next((path for path in kernel.builds.values() if path), None)}
    loaded = facts.loaded if release == facts.running else None
    return {"kernel": release, "state": state, "path": None if unknown else paths.get(state),
            "srcversion": info.srcversion, "loaded_srcversion": loaded.srcversion if loaded else None,
            "signer": info.signer, "build_seconds": seconds.get(release)}


def effective_info(kernel: KernelFacts, state: str) -> ModInfo:
    """What the module file says that a kernel loads in that state; for a build that is not installed, the build."""
    if state == "in-tree" and kernel.in_tree is not None:
        return kernel.in_tree.info
    if state == "built":
        return kernel.built_info
    if state != "installed":
        return ModInfo()
    return kernel.handed.info if kernel.handed else kernel.info


def _reload_required(facts: HostFacts, decision: Decision, planned: bool) -> bool:
    """Whether the running kernel holds another build of the module than the one that it would load now."""
    state = decision.states.get(facts.running, "absent")
    if facts.loaded is None or state not in ("installed", "in-tree"):
        return False
    if planned and facts.running in decision.built:
        return True
    return facts.loaded.srcversion != effective_info(facts.kernel(facts.running), state).srcversion
