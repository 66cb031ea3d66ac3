# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator can switch on so that VFIO or IOMMUFD takes devices that nothing isolates."""

from __future__ import annotations

from typing import Optional

from .._core.host import Host

TYPE1_UNSAFE = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"
IOMMUFD_UNSAFE = "/sys/module/iommufd/parameters/allow_unsafe_interrupts"
NOIOMMU = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
# Of a patch that distributions carry: the kernel then makes up IOMMU groups for functions that reach each other.
ACS_OVERRIDE = "pcie_acs_override"


def overrides_acs(cmdline: str) -> bool:
    """Whether a kernel command line has the argument that makes groups up."""
    return any(word.partition("=")[0] == ACS_OVERRIDE for word in cmdline.split())


def read_unsafe_setting(host: Host) -> Optional[str]:
    """A setting that is on: its file, or its name on the kernel command line. None: there is none, and the kernel
    itself refuses devices that nothing isolates."""
    if overrides_acs(host.read_text("/proc/cmdline") or ""):
        return ACS_OVERRIDE
    return next((path for path in (TYPE1_UNSAFE, IOMMUFD_UNSAFE, NOIOMMU) if host.read_text(path) == "Y"), None)
