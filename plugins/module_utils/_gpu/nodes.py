# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may open the device nodes of a VFIO function: root, or root and one group, never everybody.

/dev/vfio/N belongs to the IOMMU group and so to all functions in it; /dev/vfio/devices/vfioN belongs to one function.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from .._core.errors import PassthroughError
from .._core.host import Host
from . import ops, sysfs

GROUP_MODE = 0o660
_ROOT_MODE = 0o600
_EVERYBODY = 0o007
_UDEV_SECONDS = 30


@dataclass(frozen=True)
class NodeGroup:
    """A user group of the host."""

    name: str
    gid: int


@dataclass(frozen=True)
class DeviceNode:
    """A device node with the group and the permission bits that it has now."""

    path: str
    gid: int
    mode: int


def find_group(host: Host, name: str) -> NodeGroup:
    """The user group of this name. Raises PassthroughError where the host has none."""
    gid = host.group_id(name)
    if gid is None:
        raise PassthroughError(f"There is no group {name} on this host: create it (groupadd --system {name}), or name "
                               "another one in device_group.")
    return NodeGroup(name, gid)


def read_nodes(host: Host, address: str) -> tuple[DeviceNode, ...]:
    """The device nodes of a function that exist: none while no VFIO driver has it."""
    devices = host.listdir(sysfs.device_path(address, "vfio-dev"))
    if not devices:
        return ()
    group = sysfs.read_group_number(host, address)
    paths = [f"/dev/vfio/devices/{device}" for device in devices] + [f"/dev/vfio/{group}"]
    found = ((path, host.owner_of(path)) for path in paths)
    return tuple(DeviceNode(path, *owner) for path, owner in found if owner is not None)


def have_group(nodes: Sequence[DeviceNode], group: NodeGroup) -> bool:
    """Whether all ``nodes`` belong to the group and to nobody else."""
    return all((node.gid, node.mode) == (group.gid, GROUP_MODE) for node in nodes)


def open_to_everybody(nodes: Sequence[DeviceNode]) -> list[str]:
    """One sentence for each node that every user of the host can open or change."""
    return [f"{node.path} has mode {node.mode:03o}, so that users outside its group can open the device: find the udev "
            "rule that says so." for node in nodes if node.mode & _EVERYBODY]


def give(host: Host, device: ops.Device, group: NodeGroup, by_rule: bool, udev: bool) -> None:
    """Gives the nodes to root and ``group``: ``by_rule`` lets udev do it, so that the rule file is proven at once."""
    ops.check_unchanged(host, device)
    nodes = read_nodes(host, device.address)
    if by_rule and udev:
        _trigger(host, nodes)
    else:
        _settle(host, udev)
        for node in nodes:
            host.set_owner(node.path, group.gid, GROUP_MODE)
    for node in read_nodes(host, device.address):
        if not have_group([node], group):
            raise PassthroughError(f"{node.path} has group {node.gid} and mode {node.mode:03o} where group "
                                   f"{group.name} ({group.gid}) and mode {GROUP_MODE:03o} were asked for: another udev "
                                   "rule decides it, look for GROUP and MODE in /etc/udev/rules.d.")


def take_back(host: Host, device: ops.Device, udev: bool) -> None:
    """Gives the nodes that remain back to what the other rules of udev say, or to root where no udev runs."""
    ops.check_unchanged(host, device)
    nodes = read_nodes(host, device.address)
    if udev:
        _trigger(host, nodes)
        return
    for node in nodes:
        host.set_owner(node.path, 0, _ROOT_MODE)


def put_back(host: Host, before: Sequence[DeviceNode]) -> None:
    """After a failure: the nodes that are still there get what they had."""
    for node in before:
        if host.owner_of(node.path) not in (None, (node.gid, node.mode)):
            host.set_owner(node.path, node.gid, node.mode)


def rule_lines(address: str, group: Optional[str]) -> str:
    """The lines of a udev rule file that give the nodes of one function to a group.

    /dev/vfio/N has no link to a PCI function and its number may change, so the rule asks whether the function is in
    the IOMMU group of that number.
    """
    if group is None:
        return ""
    assign = f'GROUP="{group}", MODE="{GROUP_MODE:04o}"'
    return (f'SUBSYSTEM=="vfio", TEST=="{sysfs.GROUPS}/%k/devices/{address}", {assign}\n'
            f'SUBSYSTEM=="vfio-dev", KERNELS=="{address}", {assign}\n')


def _trigger(host: Host, nodes: Sequence[DeviceNode]) -> None:
    """udev applies its rules to the nodes now, and is waited for."""
    if nodes:
        host.run(("udevadm", "trigger", "--action=change", "--settle",
                  *(f"--name-match={node.path}" for node in nodes)), timeout=_UDEV_SECONDS)


def _settle(host: Host, udev: bool) -> None:
    """udev may still be at the event of a new node, and would then undo what we set."""
    if udev:
        with contextlib.suppress(PassthroughError):
            host.run(("udevadm", "settle", f"--timeout={_UDEV_SECONDS}"), timeout=_UDEV_SECONDS + 5, ok=())
