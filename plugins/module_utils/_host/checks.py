# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges a host by its facts. Pure: the same facts give the same verdicts, and nothing is read here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable, Optional

from .._domain.needs import NEEDS, OLDEST_LIBVIRT
from .._gpu.isolation import overrides_acs
from .facts import HostFacts
from .software import parse_version

OK = "ok"
WARN = "warn"
FAIL = "fail"

ARM = "aarch64"
ARCHITECTURES = (ARM, "x86_64")
_PAGE_SIZES = (4096, 16384, 65536)
_KIB = 1 << 10
_MIB = 1 << 20
# NVIDIA's driver in the guest onlines the memory of one GPU in up to eight nodes, one for each MIG instance.
_NODES_PER_GPU = 8
# Trust in the key of a module's signer -> what is wrong with it, and the remedy.
_TRUST = {
    "pending": (", a key that waits for the console", "Reboot, and confirm the key at the console."),
    "not-enrolled": (", a key that this machine does not know",
                     "Enrol it (mokutil --import, reboot, confirm at the console), or sign with an enrolled key."),
    "unknown": (", and it cannot be read whether the kernel trusts that key",
                "Install modinfo (kmod), mount efivarfs, then run again."),
}


@dataclass(frozen=True)
class Check:
    """A verdict: what was found (``why``) and what the operator can do about it (``remedy``, None where all is well).

    "fail" means that passthrough cannot work or is not safe, "warn" that it depends on what the host is used for or
    that the host does not tell.
    """

    id: str
    status: str
    why: str
    remedy: Optional[str] = None


def run_checks(facts: HostFacts, profiles: Sequence[str] = ()) -> list[Check]:
    """All checks in a fixed order; their ids are part of the interface. ``profiles``: those of the wanted domains.

    What a failed check weighs for these profiles is not decided here but in severity.py.
    """
    return [*(check(facts) for check in _CHECKS), _domain_profile(facts, profiles)]


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
    if overrides_acs(facts.kernel.cmdline):
        return Check("allow-unsafe-interrupts", FAIL, "The kernel command line has pcie_acs_override, which makes up "
                     "IOMMU groups: a VM could attack this host.",
                     "Remove pcie_acs_override from the kernel arguments, then reboot.")
    for setting, parameter in ((facts.vfio.allow_unsafe_interrupts, "vfio_iommu_type1.allow_unsafe_interrupts"),
                               (facts.vfio.iommufd_allow_unsafe_interrupts, "iommufd.allow_unsafe_interrupts"),
                               (facts.vfio.noiommu, "vfio.enable_unsafe_noiommu_mode")):
        if setting:
            return Check("allow-unsafe-interrupts", FAIL, f"{parameter} is on: a VM could attack this host.",
                         f"Remove {parameter} from modprobe.d and the kernel arguments, then reboot.")
    return Check("allow-unsafe-interrupts", OK, "VFIO runs with isolation.")


def _iommufd(facts: HostFacts) -> Check:
    missing = [what for what, there in (("/dev/iommu", facts.iommu.iommufd), ("VFIO device nodes", facts.iommu.cdev))
               if not there]
    if not missing:
        return Check("iommufd", OK, "/dev/iommu exists, and VFIO gives each device a node.")
    return Check("iommufd", FAIL, f"This kernel has no {' and no '.join(missing)}: VFIO groups are used, and domains "
                 "with an accelerated SMMUv3 are not possible.",
                 "Use a kernel with CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV for those, and load iommufd.")


def _vfio_pci(facts: HostFacts) -> Check:
    if facts.kernel.config is None:
        return Check("vfio-pci", WARN, "The kernel's configuration is not readable, so it is not known whether it has "
                     "VFIO.", "Install the kernel's /boot/config file, or look for vfio-pci with modinfo.")
    if facts.kernel.option("VFIO_PCI") in ("y", "m"):
        return Check("vfio-pci", OK, "The kernel has VFIO for PCI devices.")
    return Check("vfio-pci", FAIL, "The kernel was built without VFIO for PCI devices (CONFIG_VFIO_PCI).",
                 "Use a kernel with CONFIG_VFIO_PCI.")


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
    needed, who = _needed_nodes(facts)
    if needed > room:
        return Check(name, FAIL, f"{who} {needed} NUMA nodes and this kernel has room for {room} "
                     f"(CONFIG_NODES_SHIFT={shift}): the rest is lost.", "Use a kernel with CONFIG_NODES_SHIFT=6.")
    return Check(name, OK, f"{needed} of {room} NUMA nodes are in use.")


def _needed_nodes(facts: HostFacts) -> tuple[int, str]:
    """Firmware knows; where its table cannot be read, the kernel's nodes and those that coherent GPUs need."""
    if facts.numa.firmware_domains is not None:
        return max(len(facts.numa.nodes), facts.numa.firmware_domains), "The firmware describes"
    others = [node for node in facts.numa.nodes if not node.generic_initiator]
    needed = len(others) + _NODES_PER_GPU * facts.coherent_gpus
    return max(len(facts.numa.nodes), needed), f"{facts.coherent_gpus} coherent GPUs and the processors need"


def _gpu_numa_nodes(facts: HostFacts) -> Check:
    name = "gpu-numa-nodes"
    if not facts.coherent_gpus:
        return Check(name, OK, "This host has no coherent GPU that needs NUMA nodes.")
    found = sum(node.generic_initiator for node in facts.numa.nodes)
    needed = _NODES_PER_GPU * facts.coherent_gpus
    if found >= needed:
        return Check(name, OK, f"{found} generic-initiator nodes are there for {facts.coherent_gpus} coherent GPUs.")
    return Check(name, WARN, f"{found} generic-initiator nodes are there for {facts.coherent_gpus} coherent GPUs, and "
                 f"a guest's driver wants {_NODES_PER_GPU} for each: MIG will not work in guests.",
                 "Update the host's firmware; where numa-node-limit fails, too, use a kernel with room for the nodes.")


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
    state = f"Secure Boot is {facts.secure_boot}, lockdown is {facts.lockdown}"
    if facts.signatures_enforced is None:
        return Check(name, WARN, f"{state}: whether the kernel asks for signed modules is not known.",
                     "Mount securityfs and efivarfs, then run again.")
    if not facts.signatures_enforced:
        return Check(name, OK, f"{state}, and the kernel loads modules without a signature.")
    owner = f"the machine owner's keys are {', '.join(facts.enrolled_keys.mok) or 'none'}"
    if facts.enrolled_keys.pending:
        owner += f", and {', '.join(facts.enrolled_keys.pending)} waits for the console"
    return Check(name, WARN, f"{state}: only modules load that a key has signed which the kernel trusts; {owner}.",
                 "Sign the module with a key that is enrolled in the firmware's MOK list (mokutil --import, reboot, "
                 "confirm at the console), or switch Secure Boot off.")


def _module_signature(facts: HostFacts) -> Check:
    name = "module-signature"
    found = facts.module_signature
    if found.path is None and found.trust is None:
        return Check(name, OK, f"{found.module} is not installed for this kernel yet.")
    by = f"is signed by {found.signer!r}" if found.signer is not None else "is not signed"
    if facts.signatures_enforced is False:
        return Check(name, OK, f"{found.module} {by}, and this kernel does not ask for it.")
    if found.signer is not None and found.trust == "enrolled":
        return Check(name, OK, f"{found.module} {by}, a key that this kernel trusts.")
    why, remedy = _TRUST.get(found.trust or "", ("", "Sign it with a key that is enrolled: dkms_module says how."))
    doubt = found.trust == "unknown" or facts.signatures_enforced is None
    return Check(name, WARN if doubt else FAIL, f"{found.module} {by}{why}.", remedy)


def _competing_drivers(facts: HostFacts) -> Check:
    name = "competing-drivers"
    driving = [f"{driver.module} drives {', '.join(driver.functions)}" for driver in facts.conflicting_drivers
               if driver.functions]
    if driving:
        return Check(name, WARN, f"GPUs belong to the host now: {'; '.join(driving)}.",
                     "Stop what uses those that are listed for VMs; gpu_driver then takes them from that driver. "
                     "Blacklist the driver where no GPU stays with the host.")
    loaded = [driver.module for driver in facts.conflicting_drivers if driver.loaded]
    if loaded:
        return Check(name, WARN, f"Loaded drivers can take a GPU, but drive none now: {', '.join(loaded)}.",
                     "Blacklist them where no GPU stays with the host, and reboot.")
    ready = [driver.module for driver in facts.conflicting_drivers if driver.installed and not driver.blacklisted]
    if ready:
        return Check(name, WARN, f"Drivers that would take a GPU at boot are not blacklisted: {', '.join(ready)}.",
                     "Blacklist them where no GPU stays with the host.")
    return Check(name, OK, "No other driver is ready to take a GPU.")


def _hugepages(facts: HostFacts) -> Check:
    pools = [pool for pool in facts.hugepages if pool.total]
    used = [pool for pool in pools if not pool.free]
    if used:
        found = ", ".join(f"{pool.total} of {pool.size // _KIB} KiB" for pool in used)
        return Check("hugepages", WARN, f"All hugepages are in use: {found}.",
                     "Enlarge the pool by the hugepages option of host_config before another VM asks for it.")
    if not pools:
        return Check("hugepages", OK, "No hugepages are reserved: VMs have normal pages.")
    found = ", ".join(f"{pool.free} of {pool.total} of {pool.size // _KIB} KiB" for pool in pools)
    return Check("hugepages", OK, f"Free hugepages: {found}.")


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


def _domain_profile(facts: HostFacts, profiles: Sequence[str]) -> Check:
    """What libvirt and QEMU have, asked of themselves, against what the profiles of the wanted domains stand on."""
    name = "domain-profile"
    wanted = [profile for profile in profiles if profile in NEEDS]
    if not wanted:
        return Check(name, OK, "No domain is wanted.")
    if facts.libvirt.version is not None and parse_version(facts.libvirt.version) < OLDEST_LIBVIRT:
        return Check(name, FAIL, f"libvirt {facts.libvirt.version} does not take a GPU that is bound to a VFIO "
                     "variant driver.", "Install libvirt 9.7 or later.")
    if facts.qemu.present and facts.qemu_features is None:
        return Check(name, WARN, "QEMU was not asked for its features.", "Set probe_qemu: true.")
    there = facts.features()
    for profile in wanted:
        missing = [remedy for feature, remedy in NEEDS[profile] if feature not in there]
        if missing:
            return Check(name, FAIL, f"This host cannot have domains of the profile {profile}.",
                         f"It needs {' and '.join(missing)}.")
    return Check(name, OK, f"libvirt and QEMU have all that these profiles need: {', '.join(wanted)}.")


_CHECKS: tuple[Callable[[HostFacts], Check], ...] = (
    _architecture, _iommu_present, _isolated_msi, _unsafe_interrupts, _iommufd, _vfio_pci, _page_size, _kvm_present,
    _kvm_cacheable, _numa_limit, _gpu_numa_nodes, _kernel_headers, _dkms, _compiler, _secure_boot, _module_signature,
    _competing_drivers, _hugepages, _memlock, _libvirt, _qemu, _firmware_properties,
)
