# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""IOMMU groups: what must travel with a GPU, and who agreed to that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from .._core.errors import PassthroughError
from .._core.host import Host
from . import sysfs
from .isolation import read_unsafe_setting
from .model import PciIdentity
from .ops import Device


def companions(address: str, group: int, members: Iterable[PciIdentity], selected: AbstractSet[str],
               consent: AbstractSet[str]) -> list[str]:
    """Addresses of the functions in a GPU's group that have to be bound with it, beside the selected GPUs.

    Bridges stay with their driver: they do no DMA of their own. Raises PassthroughError for every other function
    that is neither selected nor in ``consent``.
    """
    others = [item for item in members if item.address not in selected and item.kind != "bridge"]
    missing = [item.describe() for item in others if item.address not in consent]
    if missing:
        raise PassthroughError(f"The IOMMU group {group} of {address} also has {', '.join(missing)}, which nobody "
                               "consented to: add it to group_consent to have it bound too, or leave this GPU out.",
                               group=group,
                               unconsented=[item.address for item in others if item.address not in consent])
    return [item.address for item in others]


def require_isolation(host: Host, address: str, group: int) -> None:
    """Refuses the groups of VFIO's no-IOMMU mode."""
    if not sysfs.group_isolates(host, group):
        raise PassthroughError(f"{address} is in the no-IOMMU group {group}, which isolates nothing: switch the IOMMU "
                               "on in firmware and on the kernel command line; this collection never uses no-IOMMU "
                               "mode.")


def require_isolating_vfio(host: Host) -> None:
    """Raises PassthroughError for a setting with which VFIO would take devices that nothing isolates.

    It is to be looked at again once a module was loaded: the file of one that is not there does not exist.
    """
    path = read_unsafe_setting(host)
    if path is not None:
        raise PassthroughError(f"{path} is on, so that VFIO takes devices that nothing isolates, and no GPU is "
                               "bound: remove it from modprobe.d and the kernel command line, then reboot.")


def require_iommu(host: Host, addresses: Sequence[str]) -> None:
    """Raises PassthroughError where no IOMMU is registered, so that a GPU without a group can never get one."""
    if addresses and not sysfs.has_iommu(host):
        raise PassthroughError(f"{addresses[0]} is in no IOMMU group and this host has no IOMMU: switch it on in "
                               "firmware and on the kernel command line (host_config), then reboot.")


def check_new_group(host: Host, device: Device, allowed: AbstractSet[str]) -> None:
    """After the first bind of a function whose group was not known: applies the rules that could not be applied."""
    group = sysfs.read_group_number(host, device.address)
    if group is None:
        raise PassthroughError(f"{device.address} is still in no IOMMU group after it was bound: it is not isolated "
                               "and cannot be passed through. Look for the IOMMU in the kernel log.")
    require_isolation(host, device.address, group)
    companions(device.address, group, group_identities(host, group), frozenset({device.address}), allowed)


def group_identities(host: Host, group: int) -> list[PciIdentity]:
    """The functions of a group that are still there."""
    found = (sysfs.read_identity(host, address) for address in sysfs.read_group_members(host, group))
    return [item for item in found if item is not None]


def allowed_addresses(selected: Iterable[str], consent: Iterable[str],
                      identities: Mapping[str, PciIdentity]) -> frozenset[str]:
    """Everything that may be bound on this host."""
    return frozenset(selected) | (frozenset(consent) & frozenset(identities))
