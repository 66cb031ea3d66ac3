# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts the facts of one host together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from .._core.host import Host
from .._gpu import sysfs
from .._gpu.model import NVIDIA
from .._gpu.products import product_of
from .acpi import read_firmware_properties
from .bootloader import read_bootloader
from .facts import ConflictingDriver, HostFacts
from .kernel import read_distribution, read_headers, read_kernel, read_machine
from .keyring import read_enforcement, read_keyring
from .kvm import read_kvm
from .later import Later
from .modprobe import ModuleIndex, normal, read_modules
from .platform import (
    read_firmware,
    read_hugepages,
    read_iommu,
    read_memlock,
    read_numa,
    read_vfio,
)
from .signature import enrolled_keys, read_module_signature
from .software import (
    name_qemu,
    probe_qemu,
    read_compiler,
    read_depmod,
    read_dkms,
    read_libvirt,
    read_libvirt_features,
)

# Drivers that match NVIDIA display functions and would take them for the host.
CONFLICTING_MODULES = ("nouveau", "nova_core", "nova_drm", "nvidia", "nvidia_drm")


def gather_facts(host: Host, ask_qemu: bool = True) -> HostFacts:
    """Reads everything once. Nothing on the host changes; ``ask_qemu`` decides whether QEMU is asked for features."""
    machine, release = read_machine(host), host.kernel_release()
    libvirt = Later(read_libvirt, host)
    qemu = Later(probe_qemu if ask_qemu else name_qemu, host, machine)
    compiler = Later(read_compiler, host)
    modules = read_modules(host, release, host.read_text("/proc/cmdline") or "")
    keyring = read_keyring(host)
    signature = Later(read_module_signature, host, release, modules, keyring)
    kernel, distribution = read_kernel(host), read_distribution(host)
    enforcement = read_enforcement(host)
    functions = nvidia_functions(host)
    return HostFacts(
        kernel=kernel,
        headers=read_headers(host, kernel.release, distribution),
        distribution=distribution,
        bootloader=read_bootloader(host),
        iommu=read_iommu(host, kernel),
        kvm=read_kvm(host),
        vfio=read_vfio(host),
        secure_boot=enforcement.secure_boot,
        lockdown=enforcement.lockdown,
        signatures_enforced=enforcement.enforced,
        module_signature=signature.get(),
        enrolled_keys=enrolled_keys(keyring),
        hugepages=read_hugepages(host),
        memlock_limit=read_memlock(host),
        numa=read_numa(host),
        dkms=read_dkms(host),
        compiler=compiler.get(),
        depmod=read_depmod(host),
        libvirt=libvirt.get(),
        qemu=qemu.get()[0],
        libvirt_features=read_libvirt_features(host, libvirt.get().version),
        qemu_features=qemu.get()[1],
        firmware=read_firmware(host, kernel.machine),
        firmware_properties=read_firmware_properties(host),
        conflicting_drivers=conflicting_drivers(modules, functions),
        coherent_gpus=sum(function.coherent for function in functions),
    )


@dataclass(frozen=True)
class NvidiaFunction:
    """A PCI function of a GPU; ``module`` is that of the driver it is bound to."""

    address: str
    coherent: bool
    module: Optional[str]


def nvidia_functions(host: Host) -> tuple[NvidiaFunction, ...]:
    """All NVIDIA functions of the display class. A driver that is built into the kernel counts as its own module."""
    found = []
    for address in host.listdir(sysfs.DEVICES):
        # One read for most functions, which are somebody else's: hosts have hundreds.
        ours = host.read_text(sysfs.device_path(address, "vendor")) == f"0x{NVIDIA}"
        identity = sysfs.read_identity(host, address) if ours else None
        if identity is not None and identity.kind == "gpu":
            driver = sysfs.read_driver(host, address)
            module = None if driver is None else sysfs.module_of_driver(host, driver) or normal(driver)
            found.append(NvidiaFunction(address, product_of(identity.vendor, identity.device) is not None, module))
    return tuple(found)


def conflicting_drivers(modules: ModuleIndex, functions: Sequence[NvidiaFunction]) -> tuple[ConflictingDriver, ...]:
    """Each known competitor of a VFIO driver, whether it is there or not, and what it drives."""
    return tuple(ConflictingDriver(name, name in modules.installed or name in modules.built_in, name in modules.loaded,
                                   name in modules.blacklisted,
                                   tuple(function.address for function in functions if function.module == name))
                 for name in CONFLICTING_MODULES)
