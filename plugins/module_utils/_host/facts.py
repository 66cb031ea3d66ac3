# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Value objects of ``host_info``: what a host is and has. Sizes are bytes; None means that the host did not tell."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Optional


@dataclass(frozen=True)
class Distribution:
    """``ID``, ``VERSION_ID`` and ``ID_LIKE`` of /etc/os-release."""

    id: str
    version_id: str
    like: tuple[str, ...]


@dataclass(frozen=True)
class Kernel:
    """The running kernel. ``config`` has the build options that matter here, without ``CONFIG_``."""

    release: str
    version_string: str
    machine: str
    page_size: int
    cmdline: str
    config: Optional[dict[str, Any]]

    def option(self, name: str) -> Any:
        """A build option: "y", "m", "n", a number, or None where no configuration is readable."""
        return None if self.config is None else self.config.get(name)


@dataclass(frozen=True)
class Headers:
    """The headers of the running kernel; ``package`` is what the distribution calls them."""

    path: str
    present: bool
    package: Optional[str]


@dataclass(frozen=True)
class Bootloader:
    """What hands the command line to the kernel. ``kind``: grub, systemd-boot, bls, unknown or none.

    "none" is a kernel that firmware, a hypervisor or the network loads; "unknown" is a loader that this collection does
    not know, or knows and cannot run here.
    """

    kind: str
    dropin_dir: Optional[str]


@dataclass(frozen=True)
class Iommu:
    """``kind``: arm-smmu-v3, intel, amd, unknown or none; ``default_domain`` is the type that most groups have."""

    present: bool
    kind: str
    groups: int
    isolated_msi: Optional[bool]
    default_domain: Optional[str]
    iommufd: bool
    cdev: bool


@dataclass(frozen=True)
class Kvm:
    """``cacheable_pfnmap`` is KVM capability 243 of a VM; ``reason`` says why it is not known."""

    present: bool
    cacheable_pfnmap: Optional[bool]
    reason: Optional[str]


@dataclass(frozen=True)
class Vfio:
    """Module parameters that switch isolation off; None where the module is not loaded."""

    allow_unsafe_interrupts: Optional[bool]
    noiommu: Optional[bool]
    iommufd_allow_unsafe_interrupts: Optional[bool]


@dataclass(frozen=True)
class HugepagePool:
    """One size of hugepages: bytes a page, pages in the pool, pages that nobody uses."""

    size: int
    total: int
    free: int


@dataclass(frozen=True)
class NumaNode:
    """A NUMA node as the kernel shows it; ``memory`` in bytes, ``distances`` to node 0, 1, ..."""

    id: int
    cpus: str
    memory: int
    distances: tuple[int, ...]
    generic_initiator: bool


@dataclass(frozen=True)
class Numa:
    """``firmware_domains``: proximity domains in the ACPI SRAT, which can be more than the kernel has room for."""

    nodes: tuple[NumaNode, ...]
    firmware_domains: Optional[int]


@dataclass(frozen=True)
class Program:
    """A program and the version it names."""

    present: bool
    version: Optional[str]
    path: Optional[str]


@dataclass(frozen=True)
class Libvirt:
    """``uri_ok``: qemu:///system answered; ``reason`` is libvirt's own sentence where it did not."""

    present: bool
    version: Optional[str]
    daemon_running: bool
    uri_ok: bool
    reason: Optional[str]


@dataclass(frozen=True)
class LibvirtFeatures:
    """What the installed libvirt can express: from its RELAX NG schema, and from its version where that is silent."""

    ras: bool
    clusters: bool
    iommu_driver_accel: bool
    iommu_driver_cmdqv: bool
    acpi_nodeset: bool
    iommufd: bool
    pcihole64_virt: bool


@dataclass(frozen=True)
class QemuFeatures:
    """What the installed QEMU says about itself when it is asked for help."""

    highmem_mmio_size: bool
    acpi_generic_initiator: bool
    arm_smmuv3_device: bool
    arm_smmuv3_accel: bool
    arm_smmuv3_cmdqv: bool
    iommufd: bool
    pasid_fork: bool
    egm_fork: bool


@dataclass(frozen=True)
class FirmwareImage:
    """A UEFI image for guests of this architecture: code, template of its variables, whether it enforces signatures."""

    path: str
    vars: Optional[str]
    secure_boot: bool
    format: str


@dataclass(frozen=True)
class Firmware:
    """``uefi``: the host itself was booted by UEFI; ``images`` are for guests, in the order libvirt prefers them."""

    uefi: bool
    images: tuple[FirmwareImage, ...]


@dataclass(frozen=True)
class ConflictingDriver:
    """A driver that would take the GPU for the host; ``functions`` are the addresses that it drives now."""

    module: str
    installed: bool
    loaded: bool
    blacklisted: bool
    functions: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModuleSignature:
    """The VFIO module that this kernel would load: ``path`` is None where there is none, ``signer`` None where it is
    not signed. ``trust`` of its key: enrolled, pending (it waits for the console), not-enrolled or unknown.
    """

    module: str
    path: Optional[str]
    signer: Optional[str]
    key: Optional[str]
    trust: Optional[str]


@dataclass(frozen=True)
class EnrolledKeys:
    """Names of certificates: in the kernel's keyrings (None: not readable), of the machine's owner (MOK), of firmware
    (db), and those that wait for the console."""

    kernel: Optional[tuple[str, ...]]
    mok: tuple[str, ...]
    db: tuple[str, ...]
    pending: tuple[str, ...]


@dataclass(frozen=True)
class HostFacts:
    """Everything that decides whether passthrough can work on a host.

    ``signatures_enforced``: the kernel refuses modules that no key it trusts has signed; None where it does not tell.
    ``coherent_gpus``: PCI functions of the products whose memory is coherent, by their ids.
    """

    kernel: Kernel
    headers: Headers
    distribution: Distribution
    bootloader: Bootloader
    iommu: Iommu
    kvm: Kvm
    vfio: Vfio
    secure_boot: str
    lockdown: str
    signatures_enforced: Optional[bool]
    module_signature: ModuleSignature
    enrolled_keys: EnrolledKeys
    hugepages: tuple[HugepagePool, ...]
    memlock_limit: Optional[int]
    numa: Numa
    dkms: Program
    compiler: Program
    depmod: Program
    libvirt: Libvirt
    qemu: Program
    libvirt_features: LibvirtFeatures
    qemu_features: Optional[QemuFeatures]
    firmware: Firmware
    firmware_properties: str
    conflicting_drivers: tuple[ConflictingDriver, ...]
    coherent_gpus: int = 0

    def features(self) -> frozenset[str]:
        """Names of what libvirt, QEMU and the kernel have of the things that domain profiles stand on."""
        names = {f"libvirt_{name}" for name, there in asdict(self.libvirt_features).items() if there}
        if self.qemu_features is not None:
            names |= {f"qemu_{name}" for name, there in asdict(self.qemu_features).items() if there}
        if self.iommu.iommufd and self.iommu.cdev:
            names.add("host_iommufd")
        return frozenset(names)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a module's result."""
        return asdict(self)
