# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What dkms_module does on a host that is handed a module which another host has built.

The controller sends the manifests of all modules that it has. Where the host has the right one, that is all. Else the
answer names what is wanted, nothing is changed, and a second call brings it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.journal import Journal
from .._core.plan import apply_plan
from .._core.runner import plan_result
from .._host.keyring import Enforcement, read_enforcement, read_keyring
from .enrolment import describe_signing, signature_warning
from .facts import HostFacts, Request
from .kernels import kernels_without_module, own_vermagic
from .planner import Decision, suits_in_tree
from .prebuilt import Prebuilt, choose, from_json, unpack_modules, verify
from .prebuilt_planner import has_module, plan_prebuilt
from .reader import STATE_NAME, read_facts
from .result import describe, effective_info
from .steps import DkmsSteps


def hand_out(params: Mapping[str, Any], request: Request, check_mode: bool, host: Host) -> dict[str, Any]:
    """Installs the modules of the controller's directory, or answers with ``_wanted``, what it needs of it."""
    facts = read_facts(host, request.package, request.targets)
    entries = [from_json(value, f"What {params['prebuilt']} holds") for value in params["_prebuilt"] or []]
    wanted, missing = _choose(params, request, facts, entries)
    warnings = []
    if missing:
        sentence = _missing_sentence(params["prebuilt"], request.package.name, facts.machine, missing)
        if not check_mode:
            raise PassthroughError(sentence, missing_prebuilt=[{"kernel": release, "machine": facts.machine}
                                                               for release in missing])
        warnings.append(sentence)
    needed = [release for release, entry in wanted.items() if not has_module(facts, release, entry)]
    contents = unpack_modules(params["_modules"])
    if not check_mode and any(release not in contents for release in needed):
        return {"changed": False, "warnings": [], "_wanted": [
            {"kernel": release, "machine": facts.machine} for release in needed]}
    enforcement = read_enforcement(host)
    if not check_mode:
        for release in needed:
            verify(wanted[release], contents[release], own_vermagic(host, release), enforcement.enforced)
    steps = DkmsSteps(request.package, request.build_timeout)
    decision = plan_prebuilt(facts, request, wanted, contents, _present_certificates(host, wanted),
                             missing, steps)
    if decision.missing.things:
        sentence = decision.missing.sentence(request.package, "removed")
        if not check_mode:
            raise PassthroughError(sentence, missing_packages=list(decision.missing.packages))
        warnings.append(sentence)
    actions = decision.plan.actions()
    if not check_mode and decision.plan.changed:
        actions = apply_plan(host, decision.plan, Journal(host, STATE_NAME))
        facts = read_facts(host, request.package, request.targets)
        _confirm(facts, request, wanted)
    return _result(params, request, facts, decision, wanted, actions, check_mode and decision.plan.changed, warnings,
                   host, enforcement)


def _choose(params: Mapping[str, Any], request: Request, facts: HostFacts,
            entries: list[Prebuilt]) -> tuple[dict[str, Prebuilt], dict[str, str]]:
    """The module for each kernel that needs one, and the kernels without, each with what is wrong."""
    wanted, missing = {}, {}
    for release in request.targets:
        kernel = facts.kernel(release)
        if suits_in_tree(kernel, request):
            continue
        if not kernel.exists:
            raise PassthroughError(f"Kernel {release} is not installed on this host: {kernel.directory} does not "
                                   "exist; name another one in 'kernels'.")
        entry, wrong = choose(entries, request.package.name, release, facts.machine, params["_source_sha256"],
                              params["certificate_sha256"])
        if entry is None:
            missing[release] = wrong
        else:
            wanted[release] = entry
    return wanted, missing


def _missing_sentence(directory: str, name: str, machine: str, missing: Mapping[str, str]) -> str:
    found = " and ".join(f"for kernel {release}{wrong}" for release, wrong in missing.items())
    return (f"{directory} on the controller has no {name} {found} on {machine}: run dkms_module with state=exported, "
            f"dest={directory} and kernels={','.join(missing)} on a builder of that architecture, then again.")


def _present_certificates(host: Host, wanted: Mapping[str, Prebuilt]) -> frozenset[str]:
    return frozenset(entry.certificate_path for entry in wanted.values()
                     if entry.certificate_path and host.read_bytes(entry.certificate_path) == entry.certificate)


def _confirm(facts: HostFacts, request: Request, wanted: Mapping[str, Prebuilt]) -> None:
    for release, entry in wanted.items():
        kernel = facts.kernel(release)
        if kernel.stale_list or kernel.active or not has_module(facts, release, entry):
            raise PassthroughError(f"Every step succeeded, yet kernel {release} would not load the "
                                   f"{request.package.name} that was handed out: run 'depmod -a {release}' by hand and "
                                   "look at what it says.")


def _result(params: Mapping[str, Any], request: Request, facts: HostFacts, decision: Decision,
            wanted: Mapping[str, Prebuilt], actions: list[str], planned: bool, warnings: list[str], host: Host,
            enforcement: Enforcement) -> dict[str, Any]:
    here = wanted.get(facts.running)
    certificate = here.parsed_certificate() if here else None
    keyring = read_keyring(host)
    signing = describe_signing(enforcement, keyring, certificate, here.certificate_path if here else None, True,
                               here is not None)
    signing["key_pair"] = "builder" if wanted else None
    if here and not planned:
        info = effective_info(facts.kernel(facts.running), "installed")
        warnings += filter(None, [signature_warning(enforcement, keyring, certificate, facts.running, info)])
    bare = kernels_without_module(host, request.package, request.targets)
    if bare:
        warnings.append(f"{', '.join(bare)}: installed here and without the module, which nobody builds on this host; "
                        "hand it out for such a kernel before the host boots it.")
    aliases: tuple[str, ...] = here.aliases if here else tuple(params["_aliases"] or ())
    result = describe(facts, request, decision, planned, {}, aliases)
    result["kernels"] += [_bare(release) for release in bare]
    result["version"] = here.version if here else next((entry.version for entry in wanted.values()), None)
    return {**plan_result(decision.plan, actions), **result, "source_sha256": params["_source_sha256"],
            "signing": signing, "missing_packages": list(decision.missing.packages), "warnings": warnings, "kept": []}


def _bare(release: str) -> dict[str, Optional[str]]:
    return {"kernel": release, "state": "absent", "path": None, "srcversion": None, "loaded_srcversion": None,
            "signer": None, "build_seconds": None}
