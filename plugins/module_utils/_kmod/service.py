# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What dkms_module does, from its parameters to its result."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.journal import Journal
from .._core.plan import apply_plan
from .._core.runner import plan_result
from .._host.keyring import read_enforcement, read_keyring
from .enrolment import describe_signing, signature_warning
from .facts import HostFacts, Package, Request, check_name
from .kernels import distribution_names, installed_kernels, resolve_kernels
from .planner import Decision, plan_absent, plan_nothing, plan_present, state_of
from .reader import STATE_NAME, read_facts
from .result import describe, effective_info
from .signing import SETTINGS, Signing, check_pair, signed_by
from .signing_reader import framework_files, read_signing
from .source import SourceTree, read_conf, unpack
from .steps import DkmsSteps

_ID = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def ensure(params: Mapping[str, Any], check_mode: bool, host: Host) -> dict[str, Any]:
    """Carries out ``state`` of the module's parameters and returns the module's result.

    Raises PassthroughError with ``missing_packages``, ``missing_prebuilt`` or ``build_log_tail`` in its details. In
    check mode what an earlier task of the same run may yet supply (packages, a build elsewhere, a GPU given back) is a
    warning.
    """
    if params["build_timeout"] < 1:
        raise PassthroughError("'build_timeout' must be at least 1 second.")
    if params["state"] == "absent":
        return _absent(params, check_mode, host)
    if not params["kernels"]:
        raise PassthroughError("'kernels' is empty: name 'running', 'installed' or kernel releases.")
    if params["certificate_sha256"] and not _SHA256.fullmatch(params["certificate_sha256"]):
        raise PassthroughError(f"{params['certificate_sha256'][:80]!r} in 'certificate_sha256' is not a SHA-256: 64 "
                               "digits of lower-case hexadecimal are needed.")
    if not _needed(params):
        return _left_alone(params, host)
    if params["prebuilt"]:
        # Here and below: what most runs do not need is not loaded for them.
        from .handout import hand_out
        return hand_out(params, _request(params, _handed_package(params), host), check_mode, host)
    return _build(params, check_mode, host)


def _request(params: Mapping[str, Any], package: Package, host: Host) -> Request:
    return Request(package, resolve_kernels(host, params["kernels"]), params["prefer_in_tree"] and not _export(params),
                   _required_ids(params["required_ids"] or []), params["force"], params["build_timeout"],
                   _export(params))


def _needed(params: Mapping[str, Any]) -> bool:
    """Whether the host is to have the driver: not where it is known that none of its GPUs needs it."""
    return bool(not params["only_if_required"] or params["required_ids"] != [] or _export(params))


def _export(params: Mapping[str, Any]) -> bool:
    return bool(params["state"] == "exported")


def _build(params: Mapping[str, Any], check_mode: bool, host: Host) -> dict[str, Any]:
    tree = _shipped_source(params)
    package = _package_of(tree, params)
    request = _request(params, package, host)
    steps = DkmsSteps(package, request.build_timeout)
    facts = read_facts(host, package, request.targets)
    signing = _signing(params, facts, host)
    decision = plan_present(facts, request, tree, steps, signing)
    if params["certificate_sha256"] and signing.certificate is None and decision.plan.changed:
        raise PassthroughError(f"{signing.pair.certificate} is not there yet, so that nothing can be compared with "
                               "'certificate_sha256': name a pair in 'signing_key' and 'signing_certificate', or leave "
                               "the hash out until DKMS has made its own.")
    warnings = list(decision.warnings)
    if decision.missing.things:
        sentence = decision.missing.sentence(package, "built")
        if not check_mode:
            raise PassthroughError(sentence, missing_packages=list(decision.missing.packages))
        warnings.append(sentence)
    actions, facts = _carry_out(host, request, facts, decision, check_mode)
    if actions and not check_mode:
        # DKMS may have made its pair just now.
        signing = _signing(params, facts, host)
        _confirm_signed(facts, request, decision, signing)
    planned = check_mode and decision.plan.changed
    described, more = _describe_signing(host, facts, decision, planned, signing)
    result = {**plan_result(decision.plan, actions),
              **describe(facts, request, decision, planned, steps.build_seconds, tree.aliases()),
              "source_sha256": tree.sha256, "signing": described,
              "missing_packages": list(decision.missing.packages), "warnings": warnings + more, "kept": []}
    if request.export:
        from .export import exports
        result.update(exports(host, facts, request, tree, signing, params["_have"] or {}, planned))
    return result


def _left_alone(params: Mapping[str, Any], host: Host) -> dict[str, Any]:
    """The result where no GPU of the host needs the driver."""
    package = _handed_package(params) if params["prebuilt"] else _package_of(_shipped_source(params), params)
    request = _request(params, package, host)
    facts = read_facts(host, request.package, request.targets)
    decision = plan_nothing(facts, request)
    signing = describe_signing(read_enforcement(host), read_keyring(host), None, None, True, False)
    return {**plan_result(decision.plan, []), **describe(facts, request, decision, False, {}, ()),
            "source_sha256": params["_source_sha256"], "signing": {**signing, "key_pair": None},
            "missing_packages": [], "warnings": [], "kept": []}


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
    return {**plan_result(decision.plan, actions),
            **describe(facts, request, decision, planned, steps.build_seconds, None), "source_sha256": None,
            "missing_packages": list(decision.missing.packages), "warnings": warnings, "kept": kept}


def _carry_out(host: Host, request: Request, facts: HostFacts, decision: Decision,
               check_mode: bool) -> tuple[list[str], HostFacts]:
    """The actions, and the facts that hold after them."""
    if check_mode or not decision.plan.changed:
        return decision.plan.actions(), facts
    actions = apply_plan(host, decision.plan, Journal(host, STATE_NAME))
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


def _handed_package(params: Mapping[str, Any]) -> Package:
    """Its version is that of the module that the controller has."""
    return Package(check_name(params["name"], "package name"), "")


def _required_ids(values: list[str]) -> frozenset[str]:
    ids = frozenset(value.lower() for value in values)
    for value in sorted(ids):
        if not _ID.fullmatch(value):
            raise PassthroughError(f"{value[:40]!r} in 'required_ids' is not of the form vendor:device, as 10de:2342.")
    return ids


def _signing(params: Mapping[str, Any], facts: HostFacts, host: Host) -> Signing:
    own = check_pair(params["signing_key"], params["signing_certificate"])
    signing = read_signing(host, own, framework_files(host), SETTINGS in facts.journal,
                           distribution_names(host)[:1] == ["ubuntu"])
    wanted = params["certificate_sha256"]
    found = signing.certificate.sha256 if signing.certificate else None
    if wanted and found and wanted != found:
        raise PassthroughError(f"{signing.pair.certificate} has the SHA-256 {found}, 'certificate_sha256' asks for "
                               f"{wanted}: name the pair that belongs to it, or correct the hash.")
    return signing


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


def _confirm_signed(facts: HostFacts, request: Request, decision: Decision, signing: Signing) -> None:
    """DKMS goes on without a word where it cannot sign."""
    for release, state in decision.states.items():
        info = effective_info(facts.kernel(release), state)
        if signing.own and signing.certificate and state != "in-tree" and signed_by(info, signing.certificate) is False:
            raise PassthroughError(f"{request.package.name} was built for kernel {release}, and {signing.pair.key} has "
                                   f"not signed it (signer: {info.signer or 'none'}): look whether "
                                   f"/lib/modules/{release}/build/scripts/sign-file is there, and run again.")


def _describe_signing(host: Host, facts: HostFacts, decision: Decision, planned: bool,
                      signing: Signing) -> tuple[dict[str, Any], list[str]]:
    """The ``signing`` part of the result, and a warning where the running kernel would not load its module."""
    enforcement = read_enforcement(host)
    keyring = read_keyring(host)
    ours = [release for release, state in decision.states.items() if state in ("installed", "built")]
    here = facts.running in ours and decision.states[facts.running] == "installed"
    path = signing.pair.certificate
    der = not (host.read_bytes(path) or b"").lstrip().startswith(b"-----")
    described = describe_signing(enforcement, keyring, signing.certificate, path, der, here)
    described["key_pair"] = ("own" if signing.own else "dkms") if ours else None
    if not here or planned:
        return described, []
    info = effective_info(facts.kernel(facts.running), "installed")
    warning = signature_warning(enforcement, keyring, signing.certificate, facts.running, info)
    return described, [warning] if warning else []


def _kept_keys(facts: HostFacts) -> list[str]:
    """Signing keys that DKMS made during our builds: they stay, because another module may be signed with them."""
    if facts.record is None:
        return []
    return [path for path in facts.record.missing_keys if path not in facts.missing_keys]
