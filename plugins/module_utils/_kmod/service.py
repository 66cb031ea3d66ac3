# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What dkms_module does, from its parameters to its result."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Optional

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.plan import apply_plan
from .._core.runner import plan_result
from .facts import HostFacts, KernelFacts, ModInfo, Package, Request, check_name
from .planner import Decision, plan_absent, plan_present, state_of
from .reader import installed_kernels, read_facts, resolve_kernels
from .source import SourceTree, read_conf, unpack
from .steps import DkmsSteps

_ID = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")


def ensure(params: Mapping[str, Any], check_mode: bool, host: Host) -> dict[str, Any]:
    """Carries out ``state`` of the module's parameters and returns the module's result.

    Raises PassthroughError with ``missing_packages`` or ``build_log_tail`` in its details. In check mode what an
    earlier task of the same run may yet supply (packages, a GPU given back) is a warning.
    """
    if params["build_timeout"] < 1:
        raise PassthroughError("'build_timeout' must be at least 1 second.")
    if params["state"] == "absent":
        return _absent(params, check_mode, host)
    return _present(params, check_mode, host)


def _present(params: Mapping[str, Any], check_mode: bool, host: Host) -> dict[str, Any]:
    tree = _shipped_source(params)
    package = _package_of(tree, params)
    request = Request(package, resolve_kernels(host, params["kernels"]), params["prefer_in_tree"],
                      _required_ids(params["required_ids"]), params["force"], params["build_timeout"])
    if not request.targets:
        raise PassthroughError("'kernels' is empty: name 'running', 'installed' or kernel releases.")
    steps = DkmsSteps(package, request.build_timeout)
    facts = read_facts(host, package, request.targets)
    decision = plan_present(facts, request, tree, steps)
    warnings = list(decision.warnings)
    if decision.missing.things:
        sentence = decision.missing.sentence(package, "built")
        if not check_mode:
            raise PassthroughError(sentence, missing_packages=list(decision.missing.packages))
        warnings.append(sentence)
    actions, facts = _carry_out(host, request, facts, decision, check_mode)
    planned = check_mode and decision.plan.changed
    return {**plan_result(decision.plan, actions), **_describe(facts, request, decision, planned, steps, tree),
            "missing_packages": list(decision.missing.packages), "warnings": warnings, "kept": []}


def _absent(params: Mapping[str, Any], check_mode: bool, host: Host) -> dict[str, Any]:
    package = Package(check_name(params["name"], "package name"),
                      check_name(params["version"], "package version") if params["version"] else "")
    request = Request(package, tuple(installed_kernels(host)))
    steps = DkmsSteps(package, params["build_timeout"])
    facts = read_facts(host, package, request.targets)
    decision = plan_absent(facts, request, steps)
    warnings = [decision.busy] if decision.busy else []
    if decision.missing.things:
        warnings.append(decision.missing.sentence(package, "removed"))
    if warnings and not check_mode:
        raise PassthroughError(warnings[0], missing_packages=list(decision.missing.packages))
    kept = _kept_keys(facts)
    actions, facts = _carry_out(host, request, facts, decision, check_mode)
    planned = check_mode and decision.plan.changed
    return {**plan_result(decision.plan, actions), **_describe(facts, request, decision, planned, steps, None),
            "missing_packages": list(decision.missing.packages), "warnings": warnings, "kept": kept}


def _carry_out(host: Host, request: Request, facts: HostFacts, decision: Decision,
               check_mode: bool) -> tuple[list[str], HostFacts]:
    """The actions, and the facts that hold after them."""
    if check_mode or not decision.plan.changed:
        return decision.plan.actions(), facts
    actions = apply_plan(host, decision.plan)
    after = read_facts(host, request.package, request.targets)
    _confirm(after, request, decision)
    return actions, after


def _shipped_source(params: Mapping[str, Any]) -> SourceTree:
    if not params["_source"] or not params["_source_sha256"]:
        raise PassthroughError("The module's source did not arrive: call nvgrace.passthrough.dkms_module by its full "
                               "name, so that its action plugin can send it.")
    return unpack(params["_source"], params["_source_sha256"])


def _package_of(tree: SourceTree, params: Mapping[str, Any]) -> Package:
    conf = read_conf(tree)
    if conf.name != params["name"] or conf.module != params["name"]:
        raise PassthroughError(f"dkms.conf makes the module {conf.module} of the package {conf.name}, 'name' is "
                               f"{params['name']}: all three must be the same.")
    if params["version"] and params["version"] != conf.version:
        raise PassthroughError(f"The source is version {conf.version}, 'version' asks for {params['version']}: give "
                               "the source of that version in 'source', or leave 'version' out.")
    return Package(check_name(conf.name, "package name"), check_name(conf.version, "package version"))


def _required_ids(values: list[str]) -> frozenset[str]:
    ids = frozenset(value.lower() for value in values)
    for value in sorted(ids):
        if not _ID.fullmatch(value):
            raise PassthroughError(f"{value[:40]!r} in 'required_ids' is not of the form vendor:device, as 10de:2342.")
    return ids


def _confirm(facts: HostFacts, request: Request, decision: Decision) -> None:
    """Trusts what stands on the host, not that every program ended well."""
    for release, wanted in decision.states.items():
        found = state_of(facts, release, request)
        if found != wanted:
            raise PassthroughError(f"Every step succeeded, yet {request.package.name} is {found} for kernel {release} "
                                   f"where {wanted} was expected: look at what 'dkms status' says.")
        if facts.kernel(release).exists and facts.kernel(release).stale_list:
            raise PassthroughError(f"depmod left {facts.kernel(release).directory}/modules.dep without the installed "
                                   f"module: run 'depmod -a {release}' by hand and look at what it says.")


def _describe(facts: HostFacts, request: Request, decision: Decision, planned: bool, steps: DkmsSteps,
              tree: Optional[SourceTree]) -> dict[str, Any]:
    kernels = [_kernel_result(facts, release, decision, planned, steps) for release in request.targets]
    leader = next((entry for entry in kernels if entry["kernel"] == facts.running), kernels[0] if kernels else None)
    provides = []
    if tree is not None and leader is not None:
        aliases = _effective_info(facts.kernel(leader["kernel"]), leader["state"]).aliases
        if planned and leader["state"] == "installed":
            aliases = tree.aliases()
        provides = [{"module": request.package.module, "driver": request.package.module, "aliases": list(aliases)}]
    return {"name": request.package.name, "version": request.package.version or None,
            "source_sha256": tree.sha256 if tree else None, "kernels": kernels, "provides": provides,
            "other_versions": [known.version for known in facts.versions
                               if tree is not None and known.version != request.package.version],
            "reload_required": _reload_required(facts, decision, planned)}


def _kernel_result(facts: HostFacts, release: str, decision: Decision, planned: bool,
                   steps: DkmsSteps) -> dict[str, Any]:
    kernel = facts.kernel(release)
    state = decision.states[release]
    unknown = planned and release in decision.built
    info = ModInfo() if unknown else _effective_info(kernel, state)
    paths = {"in-tree": kernel.in_tree.path if kernel.in_tree else None, "installed": kernel.installed}
    loaded = facts.loaded if release == facts.running else None
    return {"kernel": release, "state": state, "path": None if unknown else paths.get(state),
            "srcversion": info.srcversion, "loaded_srcversion": loaded.srcversion if loaded else None,
            "signer": info.signer, "build_seconds": steps.build_seconds.get(release)}


def _effective_info(kernel: KernelFacts, state: str) -> ModInfo:
    if state == "in-tree" and kernel.in_tree is not None:
        return kernel.in_tree.info
    return kernel.info if state == "installed" else ModInfo()


def _reload_required(facts: HostFacts, decision: Decision, planned: bool) -> bool:
    """Whether the running kernel holds another build of the module than the one that it would load now."""
    state = decision.states.get(facts.running, "absent")
    if facts.loaded is None or state == "absent":
        return False
    if planned and facts.running in decision.built:
        return True
    return facts.loaded.srcversion != _effective_info(facts.kernel(facts.running), state).srcversion


def _kept_keys(facts: HostFacts) -> list[str]:
    """Signing keys that DKMS made during our builds: they stay, because another module may be signed with them."""
    if facts.record is None:
        return []
    return [path for path in facts.record.missing_keys if path not in facts.missing_keys]
