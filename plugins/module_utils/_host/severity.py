# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much each check weighs for each domain profile. Pure; docs/preflight.md has the same table for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from .._domain.needs import ARCH_OF_PROFILE, GRACE_ORDER, NEEDS
from .checks import FAIL, OK, WARN, Check, run_checks
from .facts import HostFacts

AUTO = "auto"
# For GPUs that something else than this collection gives to VMs: nothing is asked of libvirt and QEMU.
NONE = "none"
PROFILES = (*ARCH_OF_PROFILE, NONE)
SKIP = "skip"

_LEVELS = (SKIP, WARN, FAIL)

# Check -> what a failed one is for: native, no-accel, compat, x86, none.
SEVERITY: dict[str, tuple[str, ...]] = {
    "architecture": (FAIL, FAIL, FAIL, FAIL, FAIL),
    "iommu-present": (FAIL, FAIL, FAIL, FAIL, FAIL),
    "isolated-msi": (FAIL, FAIL, FAIL, FAIL, FAIL),
    "allow-unsafe-interrupts": (FAIL, FAIL, FAIL, FAIL, FAIL),
    "iommufd": (FAIL, WARN, WARN, WARN, WARN),
    "vfio-pci": (FAIL, FAIL, FAIL, FAIL, FAIL),
    "page-size": (FAIL, FAIL, FAIL, FAIL, FAIL),
    "kvm-present": (FAIL, FAIL, FAIL, FAIL, FAIL),
    "kvm-cacheable-memory": (FAIL, FAIL, FAIL, SKIP, FAIL),
    "numa-node-limit": (FAIL, FAIL, FAIL, WARN, FAIL),
    "gpu-numa-nodes": (WARN, WARN, WARN, SKIP, WARN),
    "kernel-headers": (WARN, WARN, WARN, SKIP, WARN),
    "dkms-present": (WARN, WARN, WARN, SKIP, WARN),
    "compiler-present": (WARN, WARN, WARN, SKIP, WARN),
    "secure-boot": (WARN, WARN, WARN, WARN, WARN),
    # No more than a warning: dkms_module signs the module, and fails itself where the kernel refuses it.
    "module-signature": (WARN, WARN, WARN, WARN, WARN),
    "competing-drivers": (WARN, WARN, WARN, WARN, WARN),
    "hugepages": (WARN, WARN, WARN, WARN, WARN),
    "memlock": (WARN, WARN, WARN, WARN, WARN),
    "libvirt-present": (FAIL, FAIL, FAIL, FAIL, SKIP),
    "qemu-present": (FAIL, FAIL, FAIL, FAIL, SKIP),
    "firmware-properties": (FAIL, FAIL, FAIL, SKIP, FAIL),
    "domain-profile": (FAIL, FAIL, FAIL, FAIL, SKIP),
}


def severity_of(check: str, profile: str) -> str:
    """"fail", "warn" or "skip": what a failed check means for a profile of PROFILES."""
    return SEVERITY[check][PROFILES.index(profile)]


def resolve_profiles(wanted: Iterable[str], facts: HostFacts) -> tuple[str, ...]:
    """The profiles that are meant, in the order of PROFILES; "auto" is the best one that this host can have, as
    domain_xml chooses it, and nothing at all means "none"."""
    found = {_best_profile(facts) if name == AUTO else name for name in wanted} or {NONE}
    return tuple(name for name in PROFILES if name in found)


def _best_profile(facts: HostFacts) -> str:
    if facts.kernel.machine == ARCH_OF_PROFILE["x86"]:
        return "x86"
    there = facts.features()
    fitting = [name for name in GRACE_ORDER if there.issuperset(feature for feature, _what in NEEDS[name])]
    # without any, the least demanding one explains best what the host lacks
    return fitting[0] if fitting else GRACE_ORDER[-1]


def judge(facts: HostFacts, profiles: Sequence[str]) -> list[Check]:
    """All verdicts, for the most demanding of the profiles.

    A severity limits what a check says: one that failed becomes a warning where that is all it weighs, and a doubt
    (the check itself says "warn") never becomes a failure.
    """
    return [_weigh(check, profiles) for check in run_checks(facts, profiles)]


def _weigh(check: Check, profiles: Sequence[str]) -> Check:
    severity = max((severity_of(check.id, profile) for profile in profiles), key=_LEVELS.index)
    if check.status == OK:
        return check
    if severity == SKIP:
        return Check(check.id, OK, f"{check.why} That does not matter here: no domain of this host needs it.")
    return replace(check, status=min(check.status, severity, key=_LEVELS.index))
