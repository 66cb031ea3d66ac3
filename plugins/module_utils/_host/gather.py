# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts the facts of one host together."""

from __future__ import annotations

from .._core.host import Host
from .acpi import read_firmware_properties
from .bootloader import read_bootloader
from .facts import ConflictingDriver, HostFacts
from .kernel import read_distribution, read_headers, read_kernel
from .keyring import read_lockdown, read_secure_boot
from .kvm import read_kvm
from .modprobe import ModuleIndex, read_modules
from .platform import (
    read_firmware,
    read_hugepages,
    read_iommu,
    read_memlock,
    read_numa,
    read_vfio,
)
from .software import (
    read_compiler,
    read_depmod,
    read_dkms,
    read_libvirt,
    read_libvirt_features,
    read_qemu,
    read_qemu_features,
)

# Drivers that match NVIDIA display functions and would take them for the host.
CONFLICTING_MODULES = ("nouveau", "nova_core", "nova_drm", "nvidia", "nvidia_drm")


def gather_facts(host: Host, probe_qemu: bool = True) -> HostFacts:
    """Reads everything once. Nothing on the host changes; ``probe_qemu`` decides whether QEMU is asked for features."""
    kernel = read_kernel(host)
    distribution = read_distribution(host)
    libvirt = read_libvirt(host)
    qemu = read_qemu(host, kernel.machine)
    return HostFacts(
        kernel=kernel,
        headers=read_headers(host, kernel.release, distribution),
        distribution=distribution,
        bootloader=read_bootloader(host),
        iommu=read_iommu(host, kernel),
        kvm=read_kvm(host),
        vfio=read_vfio(host),
        secure_boot=read_secure_boot(host),
        lockdown=read_lockdown(host),
        hugepages=read_hugepages(host),
        memlock_limit=read_memlock(host),
        numa=read_numa(host),
        dkms=read_dkms(host),
        compiler=read_compiler(host),
        depmod=read_depmod(host),
        libvirt=libvirt,
        qemu=qemu,
        libvirt_features=read_libvirt_features(host, libvirt.version),
        qemu_features=read_qemu_features(host, qemu, kernel.machine) if probe_qemu else None,
        firmware=read_firmware(host, kernel.machine),
        firmware_properties=read_firmware_properties(host),
        conflicting_drivers=conflicting_drivers(read_modules(host, kernel.release, kernel.cmdline)),
    )


def conflicting_drivers(modules: ModuleIndex) -> tuple[ConflictingDriver, ...]:
    """Each known competitor of a VFIO driver, whether it is there or not."""
    return tuple(ConflictingDriver(name, name in modules.installed or name in modules.built_in, name in modules.loaded,
                                   name in modules.blacklisted) for name in CONFLICTING_MODULES)
