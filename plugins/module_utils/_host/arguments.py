# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Typed wishes -> kernel arguments of one processor. Pure. Source of each name: the kernel's kernel-parameters.txt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .._core.errors import PassthroughError
from .entries import key_of
from .processor import ARM, INTEL

UNMANAGED = "unmanaged"
AUTO = "auto"
ENABLED = "enabled"
DISABLED = "disabled"

_SWITCH = (UNMANAGED, ENABLED, DISABLED)
CHOICES: dict[str, tuple[str, ...]] = {
    "iommu": (UNMANAGED, AUTO, ENABLED),
    "iommu_passthrough": _SWITCH,
    "iommu_strict": _SWITCH,
    "init_on_alloc": _SWITCH,
    "numa_balancing": _SWITCH,
    "transparent_hugepage": (UNMANAGED, "always", "madvise", "never"),
    "preempt": (UNMANAGED, "none", "voluntary", "full", "lazy"),
    "pci_realloc": _SWITCH,
    "pcie_bus": (UNMANAGED, "tune_off", "safe", "perf", "peer2peer"),
    "power_cap": (UNMANAGED, ENABLED),
}
"""Option of kernel_settings -> its values. What is left out is not managed."""

_INTEL_IOMMU = "intel_iommu=on"
_PATTERNS = {
    "iommu_passthrough": ("iommu.passthrough={}", "1", "0"),
    "iommu_strict": ("iommu.strict={}", "1", "0"),
    "init_on_alloc": ("init_on_alloc={}", "1", "0"),
    "numa_balancing": ("numa_balancing={}", "enable", "disable"),
}


@dataclass(frozen=True)
class Platform:
    """``processor``: arm, intel, amd or other. ``iommu``: the running kernel uses one. ``cmdline``: its arguments."""

    processor: str
    iommu: bool
    cmdline: tuple[str, ...]


def kernel_arguments(raw: tuple[str, ...], wishes: Mapping[str, str], platform: Platform) -> tuple[str, ...]:
    """The arguments that typed wishes mean on this processor, and the raw ones behind them.

    Raises PassthroughError where both give one name different values.
    """
    typed = tuple(_typed(wishes, platform))
    for argument in typed:
        other = next((word for word in raw if key_of(word) == key_of(argument) and word != argument), None)
        if other is not None:
            raise PassthroughError(f"kernel_arguments has {other}, and kernel_settings means {argument}: leave one of "
                                   "them out.")
    return tuple(dict.fromkeys(typed + raw))


def _typed(wishes: Mapping[str, str], platform: Platform) -> list[str]:
    found = [_INTEL_IOMMU] if _needs_intel_iommu(wishes.get("iommu", UNMANAGED), platform) else []
    for name, (pattern, on, off) in _PATTERNS.items():
        wish = wishes.get(name, UNMANAGED)
        if wish != UNMANAGED:
            found.append(pattern.format(on if wish == ENABLED else off))
    for name in ("transparent_hugepage", "preempt"):
        if wishes.get(name, UNMANAGED) != UNMANAGED:
            found.append(f"{name}={wishes[name]}")
    # One argument for both, because boot loaders replace an argument by its name.
    pci = []
    if wishes.get("pcie_bus", UNMANAGED) != UNMANAGED:
        pci.append(f"pcie_bus_{wishes['pcie_bus']}")
    if wishes.get("pci_realloc", UNMANAGED) != UNMANAGED:
        pci.append(f"realloc={'on' if wishes['pci_realloc'] == ENABLED else 'off'}")
    if pci:
        found.append(f"pci={','.join(pci)}")
    if wishes.get("power_cap") == ENABLED and platform.processor == ARM:
        found.append("acpi_power_meter.force_cap_on=y")
    return found


def _needs_intel_iommu(wish: str, platform: Platform) -> bool:
    """Only Intel's driver can be off by default; Arm's and AMD's are on wherever firmware describes an IOMMU.

    "auto" asks for the argument where the IOMMU is off without it, and keeps asking when it is on because of it.
    """
    if platform.processor != INTEL or wish == UNMANAGED:
        return False
    return wish == ENABLED or not platform.iommu or _INTEL_IOMMU in platform.cmdline
