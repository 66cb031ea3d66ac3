# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each domain profile stands on, for domain_xml and for the checks of host_info."""

from __future__ import annotations

ARCH_OF_PROFILE = {"native": "aarch64", "no-accel": "aarch64", "compat": "aarch64", "x86": "x86_64"}

# What each profile stands on: (name of the probed feature, what to tell the operator when it is missing)
NEEDS: dict[str, tuple[tuple[str, str], ...]] = {
    "native": (
        ("libvirt_iommu_driver_accel", "libvirt 12.7 or later (accelerated SMMUv3 in its schema)"),
        ("libvirt_acpi_nodeset", "libvirt 11.8 or later (<acpi nodeset> in its schema)"),
        ("libvirt_iommufd", "libvirt 12.2 or later (<iommufd> in its schema)"),
        ("libvirt_pcihole64_virt", "libvirt 12.0 or later (<pcihole64> for the virt machine)"),
        ("qemu_arm_smmuv3_accel", "QEMU 11.0 or later (arm-smmuv3 with accel)"),
        ("qemu_acpi_generic_initiator", "QEMU 10.0 or later (acpi-generic-initiator)"),
        ("host_iommufd", "a host kernel with IOMMUFD and VFIO_DEVICE_CDEV"),
    ),
    "no-accel": (
        ("libvirt_acpi_nodeset", "libvirt 11.8 or later (<acpi nodeset> in its schema)"),
        ("libvirt_pcihole64_virt", "libvirt 12.0 or later (<pcihole64> for the virt machine)"),
        ("qemu_highmem_mmio_size", "QEMU 10.0 or later (highmem-mmio-size)"),
        ("qemu_acpi_generic_initiator", "QEMU 10.0 or later (acpi-generic-initiator)"),
    ),
    "compat": (
        ("qemu_highmem_mmio_size", "QEMU 10.0 or later (highmem-mmio-size)"),
        ("qemu_acpi_generic_initiator", "QEMU 10.0 or later (acpi-generic-initiator)"),
    ),
    "x86": (),
}
# The same for what a VM of the native profile can have beside it
NEEDS_OF_CMDQV = (
    ("libvirt_iommu_driver_cmdqv", "libvirt 12.7 or later (cmdqv in its schema)"),
    ("qemu_arm_smmuv3_cmdqv", "QEMU 11.1 or later (arm-smmuv3 with cmdqv)"),
)
GRACE_ORDER = ("native", "no-accel", "compat")

# libvirt before 9.7 does not take a device that is bound to a variant driver and not managed by it
OLDEST_LIBVIRT = (9, 7)
