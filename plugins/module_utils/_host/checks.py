# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges a host by its facts. Pure: the same facts give the same verdicts, and nothing is read here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Optional

from .facts import HostFacts

OK = "ok"
WARN = "warn"
FAIL = "fail"

ARM = "aarch64"
ARCHITECTURES = (ARM, "x86_64")
_PAGE_SIZES = (4096, 16384, 65536)
_MIB = 1 << 20


@dataclass(frozen=True)
class Check:
    """A verdict: what was found (``why``) and what the operator can do about it (``remedy``, None where all is well).

    "fail" means that passthrough cannot work or is not safe, "warn" that it depends on what the host is used for.
    """

    id: str
    status: str
    why: str
    remedy: Optional[str] = None


def run_checks(facts: HostFacts) -> list[Check]:
    """All checks in a fixed order; their ids are part of the interface."""
    return [check(facts) for check in _CHECKS]


def _architecture(facts: HostFacts) -> Check:
    machine = facts.kernel.machine
    if machine in ARCHITECTURES:
        return Check("architecture", OK, f"The host is {machine}.")
    return Check("architecture", FAIL, f"The host is {machine}.", "Use a host of " + " or ".join(ARCHITECTURES) + ".")


def _iommu_present(facts: HostFacts) -> Check:
    iommu = facts.iommu
    if iommu.present:
        return Check("iommu-present", OK, f"The IOMMU ({iommu.kind}) is on and has {iommu.groups} groups.")
    hint = "in the firmware setup"
    if facts.kernel.machine != ARM:
        hint += " and, on Intel, with the kernel argument intel_iommu=on"
    return Check("iommu-present", FAIL, "The kernel has no IOMMU in use, so no device can be isolated.",
                 f"Switch it on {hint}, then reboot.")


def _isolated_msi(facts: HostFacts) -> Check:
    state = facts.iommu.isolated_msi
    if state:
        return Check("isolated-msi", OK, "Interrupts of devices are isolated (interrupt remapping or ITS).")
    if state is None:
        return Check("isolated-msi", WARN, "No message-signalled interrupt is in use that would show whether "
                     "interrupts are isolated.", "Look for interrupt remapping or ITS in the kernel log.")
    return Check("isolated-msi", FAIL, "Any device can raise any interrupt: VFIO will refuse to open one.",
                 "Switch interrupt remapping on in the firmware setup and drop intremap=off from the kernel arguments.")


def _unsafe_interrupts(facts: HostFacts) -> Check:
    for setting, parameter in ((facts.vfio.allow_unsafe_interrupts, "vfio_iommu_type1.allow_unsafe_interrupts"),
                               (facts.vfio.noiommu, "vfio.enable_unsafe_noiommu_mode")):
        if setting:
            return Check("allow-unsafe-interrupts", FAIL, f"{parameter} is on: a VM could attack this host.",
                         f"Remove {parameter} from modprobe.d and the kernel arguments, then reboot.")
    return Check("allow-unsafe-interrupts", OK, "VFIO runs with isolation.")


def _iommufd(facts: HostFacts) -> Check:
    if facts.iommu.iommufd:
        return Check("iommufd", OK, "/dev/iommu exists.")
    return Check("iommufd", WARN, "/dev/iommu does not exist: VFIO groups are used, and domains with an accelerated "
                 "SMMUv3 are not possible.", "Use a kernel with CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV for those.")


def _page_size(facts: HostFacts) -> Check:
    size = facts.kernel.page_size
    if size in _PAGE_SIZES:
        return Check("page-size", OK, f"The kernel has pages of {size // 1024} KiB.")
    return Check("page-size", FAIL, f"The kernel has pages of {size} bytes.", "Use a kernel with 4, 16 or 64 KiB.")


def _kvm_present(facts: HostFacts) -> Check:
    if facts.kvm.present:
        return Check("kvm-present", OK, "/dev/kvm exists.")
    return Check("kvm-present", FAIL, "/dev/kvm does not exist: no VM can use a GPU here.",
                 "Switch virtualisation on in the firmware setup (arm64: the kernel must start in EL2) and load kvm.")


def _kvm_cacheable(facts: HostFacts) -> Check:
    name = "kvm-cacheable-memory"
    if facts.kernel.machine != ARM:
        return Check(name, OK, "Only arm64 hosts need this capability.")
    if facts.kvm.cacheable_pfnmap:
        return Check(name, OK, "KVM maps device memory cacheable (capability 243).")
    if facts.kvm.cacheable_pfnmap is None:
        return Check(name, WARN, f"KVM could not be asked for capability 243: {facts.kvm.reason}.",
                     "Make /dev/kvm usable, then run again.")
    return Check(name, FAIL, f"KVM of kernel {facts.kernel.release} does not map device memory cacheable (no "
                 "capability 243): a guest cannot use the memory of a coherent GPU.",
                 "Use Linux 6.17 or newer, or a vendor kernel with that change.")


def _numa_limit(facts: HostFacts) -> Check:
    name = "numa-node-limit"
    shift = facts.kernel.option("NODES_SHIFT")
    if not isinstance(shift, int):
        return Check(name, WARN, "The kernel's CONFIG_NODES_SHIFT is not readable.",
                     "Install the kernel's /boot/config file, or compare the NUMA nodes with the firmware's by hand.")
    room = 1 << shift
    needed = max(len(facts.numa.nodes), facts.numa.firmware_domains or 0)
    if needed > room:
        return Check(name, FAIL, f"The firmware describes {needed} NUMA domains and this kernel has room for {room} "
                     f"(CONFIG_NODES_SHIFT={shift}): the rest is lost.", "Use a kernel with CONFIG_NODES_SHIFT=6.")
    return Check(name, OK, f"{needed} of {room} NUMA nodes are in use.")


def _kernel_headers(facts: HostFacts) -> Check:
    name = "kernel-headers"
    if facts.headers.present:
        return Check(name, OK, f"The headers of {facts.kernel.release} are installed.")
    package = facts.headers.package or "the headers of the running kernel"
    return Check(name, WARN, f"The headers of {facts.kernel.release} are missing ({facts.headers.path} has no "
                 "Makefile): no module can be built here.", f"Install {package}.")


def _program(name: str, present: bool, what: str, package: str, severity: str) -> Check:
    if present:
        return Check(name, OK, f"{what} is installed.")
    return Check(name, severity, f"{what} is not installed.", f"Install {package}.")


def _dkms(facts: HostFacts) -> Check:
    return _program("dkms-present", facts.dkms.present, "DKMS", "dkms", WARN)


def _compiler(facts: HostFacts) -> Check:
    return _program("compiler-present", facts.compiler.present, "A C compiler", "gcc and make", WARN)


def _secure_boot(facts: HostFacts) -> Check:
    name = "secure-boot"
    remedy = "Sign the module with a key that is enrolled in the firmware's MOK list, or switch Secure Boot off."
    if facts.secure_boot == "enabled":
        return Check(name, WARN, "Secure Boot is on: only modules signed with an enrolled key load.", remedy)
    if facts.lockdown in ("integrity", "confidentiality"):
        return Check(name, WARN, f"The kernel is locked down ({facts.lockdown}): only signed modules load.", remedy)
    if facts.secure_boot == "unknown":
        return Check(name, WARN, "The state of Secure Boot cannot be read.", "Mount efivarfs, then run again.")
    return Check(name, OK, "Secure Boot is off.")


def _competing_drivers(facts: HostFacts) -> Check:
    name = "competing-drivers"
    loaded = [driver.module for driver in facts.conflicting_drivers if driver.loaded]
    if loaded:
        return Check(name, WARN, f"Loaded drivers can hold a GPU: {', '.join(loaded)}.",
                     "Blacklist them where no GPU stays with the host, and reboot.")
    ready = [driver.module for driver in facts.conflicting_drivers if driver.installed and not driver.blacklisted]
    if ready:
        return Check(name, WARN, f"Drivers that would take a GPU at boot are not blacklisted: {', '.join(ready)}.",
                     "Blacklist them where no GPU stays with the host.")
    return Check(name, OK, "No other driver is ready to take a GPU.")


def _memlock(facts: HostFacts) -> Check:
    limit = facts.memlock_limit
    if limit == -1:
        return Check("memlock", OK, "Locked memory is not limited.")
    if facts.libvirt.present:
        return Check("memlock", OK, "libvirt raises the limit of locked memory for each VM itself.")
    found = "is not readable" if limit is None else f"is {limit // _MIB} MiB"
    return Check("memlock", WARN, f"The limit of locked memory {found}, and there is no libvirt to raise it.",
                 "Set the memlock option of host_config for VMs that are started by hand.")


def _libvirt(facts: HostFacts) -> Check:
    name = "libvirt-present"
    libvirt = facts.libvirt
    if not libvirt.present:
        return Check(name, FAIL, "libvirt is not installed: no domain can be defined.",
                     "Install libvirt (Debian: libvirt-daemon-system and libvirt-clients).")
    if not libvirt.uri_ok:
        return Check(name, FAIL, f"libvirt does not answer on qemu:///system: {libvirt.reason}",
                     "Start libvirtd (or virtqemud), then run again.")
    return Check(name, OK, f"libvirt {libvirt.version} answers on qemu:///system.")


def _qemu(facts: HostFacts) -> Check:
    return _program("qemu-present", facts.qemu.present, f"QEMU for {facts.kernel.machine}",
                    "qemu-system-arm" if facts.kernel.machine == ARM else "qemu-system-x86", FAIL)


def _firmware_properties(facts: HostFacts) -> Check:
    name = "firmware-properties"
    if facts.kernel.machine != ARM:
        return Check(name, OK, "Only Grace hosts have these properties.")
    if facts.firmware_properties == "present":
        return Check(name, OK, "The ACPI tables describe the memory of a coherent GPU.")
    if facts.firmware_properties == "unknown":
        return Check(name, WARN, "The ACPI tables cannot be read.", "Run as root on a kernel without lockdown.")
    return Check(name, FAIL, "No ACPI table has nvidia,gpu-mem-base-pa and nvidia,gpu-mem-size: a coherent GPU would "
                 "be given to VMs without its memory.", "Update the host's firmware, or accept this on a host without "
                 "coherent GPUs.")


_CHECKS: tuple[Callable[[HostFacts], Check], ...] = (
    _architecture, _iommu_present, _isolated_msi, _unsafe_interrupts, _iommufd, _page_size, _kvm_present,
    _kvm_cacheable, _numa_limit, _kernel_headers, _dkms, _compiler, _secure_boot, _competing_drivers, _memlock,
    _libvirt, _qemu, _firmware_properties,
)
