# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which shape of domain a host can run, decided by what was probed and not by version numbers alone.

native    accelerated SMMUv3 per GPU, iommufd, generic initiators and MMIO window by libvirt's own elements
no-accel  the same elements without the SMMU; the expander bus needs a reserve
compat    libvirt too old for the elements: generic initiators and MMIO window on QEMU's command line
x86       q35 with a root port per GPU
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from .._core.errors import PassthroughError
from .model import Feature, HostView, VmRequest
from .needs import ARCH_OF_PROFILE, GRACE_ORDER, NEEDS, NEEDS_OF_CMDQV, OLDEST_LIBVIRT


@dataclass(frozen=True)
class Profile:
    """How the parts of a domain are made: by libvirt's elements or on QEMU's command line."""

    name: str
    arch: str
    accel: bool
    iommufd: bool
    initiators_by_libvirt: bool
    window_by_libvirt: bool
    ras: bool
    cmdqv: Optional[bool]
    features: tuple[Feature, ...]


def choose_profile(request: VmRequest, host: HostView) -> Profile:
    """Raises PassthroughError where the host is too old for every profile, or for the one that was asked for."""
    _refuse_forks(host)
    name = _resolve(request, host)
    if host.known:
        _check_arch(request, host, name)
        _check_libvirt(host)
        missing = _missing(name, host, request)
        if missing:
            raise PassthroughError(f"VM {request.name} cannot have the profile {name} on this host: it needs "
                                   f"{' and '.join(missing)}; found libvirt {host.libvirt or 'none'} and QEMU "
                                   f"{host.qemu or 'none'}.")
    elif request.virt_type == "qemu" and name == "native":
        raise PassthroughError(f"VM {request.name}: the native profile needs type kvm.")
    if request.cmdqv:
        _check_cmdqv(request, host, name)
    return _profile(name, host, _cmdqv(request, host))


def version_tuple(text: str) -> Optional[tuple[int, ...]]:
    """(11, 3, 0) of "11.3.0"; None where there is no version."""
    parts = text.split(".")
    return tuple(int(part) for part in parts) if text and all(part.isdigit() for part in parts) else None


def _refuse_forks(host: HostView) -> None:
    for feature, what in (("qemu_pasid_fork", "arm-smmuv3 with pasid="), ("qemu_egm_fork", "EGM memory objects")):
        if host.has(feature):
            raise PassthroughError(f"The QEMU of this host is a build of NVIDIA's fork ({what}): its options differ "
                                   "from released QEMU, so no domain is made for it; install QEMU 10.0 or later.")


def _resolve(request: VmRequest, host: HostView) -> str:
    if request.profile != "auto":
        return request.profile
    if not host.known:
        raise PassthroughError(f"VM {request.name}: without host facts the profile cannot be chosen; set profile to "
                               "native, no-accel, compat or x86.")
    if host.arch == "x86_64":
        return "x86"
    fitting = [name for name in GRACE_ORDER if not _missing(name, host, request)]
    # the last one explains best what the host lacks
    return fitting[0] if fitting else GRACE_ORDER[-1]


def _missing(name: str, host: HostView, request: VmRequest) -> list[str]:
    missing = [remedy for feature, remedy in NEEDS[name] if not host.has(feature)]
    if name == "native" and request.virt_type != "kvm":
        missing.append("type kvm")
    return missing


def _check_cmdqv(request: VmRequest, host: HostView, name: str) -> None:
    if name != "native":
        raise PassthroughError(f"VM {request.name} asks for cmdqv, which only the profile native has; here it would "
                               f"have the profile {name}.")
    missing = [remedy for feature, remedy in NEEDS_OF_CMDQV if host.known and not host.has(feature)]
    if missing:
        raise PassthroughError(f"VM {request.name} asks for cmdqv, which needs {' and '.join(missing)}; found libvirt "
                               f"{host.libvirt or 'none'} and QEMU {host.qemu or 'none'}.")


def _cmdqv(request: VmRequest, host: HostView) -> Optional[bool]:
    """QEMU's own choice is to use the queues where it can, also for a guest whose memory is not contiguous: said to be
    off where it can be said."""
    known = host.has(*(feature for feature, _remedy in NEEDS_OF_CMDQV))
    return True if request.cmdqv else False if known else None


def _check_arch(request: VmRequest, host: HostView, name: str) -> None:
    if host.arch != ARCH_OF_PROFILE[name]:
        raise PassthroughError(f"VM {request.name} asks for the profile {name}, which is for {ARCH_OF_PROFILE[name]}; "
                               f"this host is {host.arch or 'of an unknown architecture'}.")


def _check_libvirt(host: HostView) -> None:
    version = version_tuple(host.libvirt)
    if version is not None and version < OLDEST_LIBVIRT:
        raise PassthroughError(f"libvirt {host.libvirt} is too old: it does not take a GPU that is bound to a VFIO "
                               "variant driver; install libvirt 9.7 or later.")


def _profile(name: str, host: HostView, cmdqv: Optional[bool]) -> Profile:
    by_libvirt = name in ("native", "no-accel")
    iommufd = name == "native" or (name == "no-accel" and host.has("libvirt_iommufd", "qemu_iommufd", "host_iommufd"))
    # without facts only what every libvirt of the profile has
    ras = ARCH_OF_PROFILE[name] == "aarch64" and (host.has("libvirt_ras") if host.known else by_libvirt)
    return Profile(name, ARCH_OF_PROFILE[name], name == "native", iommufd, by_libvirt, by_libvirt, ras, cmdqv,
                   _features(name, host, iommufd, ras))


def _features(name: str, host: HostView, iommufd: bool, ras: bool) -> tuple[Feature, ...]:
    versions = f"libvirt {host.libvirt or '?'} and QEMU {host.qemu or '?'}" if host.known else "host not known"
    chosen = Feature("profile", name, versions)
    if name == "x86":
        return (chosen,)
    old = "this libvirt has no element for it"
    by_libvirt = name != "compat"
    return (
        chosen,
        Feature("accelerated-smmu", "libvirt" if name == "native" else "off",
                "libvirt and QEMU both have it" if name == "native" else "libvirt 12.7 and QEMU 11.0 are needed"),
        Feature("iommufd", "libvirt" if iommufd else "off",
                "libvirt, QEMU and the kernel have it" if iommufd else "libvirt, QEMU or the kernel lacks it"),
        Feature("mmio-window", "libvirt" if by_libvirt else "qemu:commandline",
                "<pcihole64> works for the virt machine" if by_libvirt else old),
        Feature("ras", "libvirt" if ras else "off",
                "host memory errors reach the guest" if ras else "this libvirt has no <ras>"),
    )
