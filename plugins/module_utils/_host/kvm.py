# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks KVM itself whether guests may have cacheable mappings of device memory."""

from __future__ import annotations

import fcntl
import os

from .._core.host import Host
from .facts import Kvm

KVM_DEVICE = "/dev/kvm"
KVM_CREATE_VM = 0xAE01
KVM_CHECK_EXTENSION = 0xAE03
KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED = 243


def read_kvm(host: Host) -> Kvm:
    """Capability 243 (Linux 6.17) of a VM that is created for the question and closed again.

    The question has to go to a VM: /dev/kvm itself answers it with EINVAL. A kernel that does not know the number
    answers 0, so no version is compared.
    """
    if not host.exists(KVM_DEVICE):
        return Kvm(False, None, f"{KVM_DEVICE} does not exist")
    try:
        return Kvm(True, _cacheable_pfnmap(host.path(KVM_DEVICE)), None)
    except OSError as error:
        return Kvm(True, None, f"{KVM_DEVICE} refused: {error.strerror}")


def _cacheable_pfnmap(device: str) -> bool:
    system = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        vm = fcntl.ioctl(system, KVM_CREATE_VM, 0)
        try:
            return fcntl.ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED) > 0
        finally:
            os.close(vm)
    finally:
        os.close(system)
