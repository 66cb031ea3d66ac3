# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The writes that move a PCI function from one driver to another. Each one first checks that the function is still the
one that the plan was made for, runs bounded in time, and is read back."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, Callable, Optional

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.kernel_log import KernelLog
from .._core.plan import Call
from . import sysfs
from .child import ChildTimeoutError, run_in_child
from .model import PciIdentity
from .ready import cxl_seconds

_PROBE_ALL = "/sys/bus/pci/drivers_probe"
# What a probe takes beside the wait for the GPU's memory.
_PROBE_SECONDS = 30


@dataclass(frozen=True)
class Device:
    """The function that a plan is about. ``group`` None: not known yet. ``timeout`` in seconds for each kernel call."""

    identity: PciIdentity
    group: Optional[int]
    timeout: float

    @property
    def address(self) -> str:
        return self.identity.address

    def path(self, attribute: str) -> str:
        return sysfs.device_path(self.address, attribute)


def device_step(text: str, function: Callable[..., None], device: Device, *arguments: Any) -> Call:
    """A plan step that calls one of this module's functions; ``text`` is what the operator reads."""
    return Call(text, lambda host: function(host, device, *arguments))


def check_unchanged(host: Host, device: Device) -> None:
    """Raises PassthroughError where another function, or none, is at the address now, or its group is another."""
    now = sysfs.read_identity(host, device.address)
    if now is None:
        raise PassthroughError(f"{device.address} has left the host since the plan was made: nothing was written to "
                               "it.")
    if now.vendor_device != device.identity.vendor_device:
        raise PassthroughError(f"{device.address} is {now.vendor_device} now and was {device.identity.vendor_device} "
                               "when the plan was made: nothing was written to it.")
    group = sysfs.read_group_number(host, device.address)
    if device.group is not None and group != device.group:
        raise PassthroughError(f"{device.address} is in IOMMU group {group} now and was in {device.group} when the "
                               "plan was made: nothing was written to it.")


def set_override(host: Host, device: Device, driver: Optional[str]) -> None:
    """Says which driver alone may take the function; None lifts that, which sysfs wants written as a newline."""
    check_unchanged(host, device)
    _write(host, device, device.path("driver_override"), driver or "\n")


def unbind(host: Host, device: Device) -> None:
    """Takes the function from its driver. A driver that waits for its users makes this time out, not hang."""
    check_unchanged(host, device)
    if sysfs.read_driver(host, device.address) is None:
        return
    _write(host, device, device.path("driver/unbind"), device.address)
    left = sysfs.read_driver(host, device.address)
    if left is not None:
        raise PassthroughError(f"{device.address} is still bound to {left} after its unbind: see the kernel log.")


def probe(host: Host, device: Device, driver: str) -> None:
    """Lets the kernel bind the function by its driver_override, and requires ``driver`` afterwards.

    The driver of a CXL GPU waits in its probe until the GPU is ready, which may take longer than other calls.
    """
    check_unchanged(host, device)
    ready = cxl_seconds(host.read_bytes(device.path("config")) or b"")
    if ready is not None:
        device = replace(device, timeout=max(device.timeout, ready + _PROBE_SECONDS))
    _give_to(host, device, _PROBE_ALL, driver)


def bind(host: Host, device: Device, driver: str) -> None:
    """Gives the function to one driver by name, whatever other drivers would match it."""
    check_unchanged(host, device)
    if sysfs.read_driver(host, device.address) == driver:
        return
    if not sysfs.has_driver(host, driver):
        raise PassthroughError(f"{device.address} cannot go back to {driver}, which is not loaded: load its module, "
                               "then run again.")
    _give_to(host, device, f"{sysfs.DRIVERS}/{driver}/bind", driver)


def require_vfio(host: Host, device: Device) -> None:
    """Raises PassthroughError where the bound driver has registered no VFIO device for the function."""
    if not host.listdir(device.path("vfio-dev")):
        driver = sysfs.read_driver(host, device.address)
        raise PassthroughError(f"{device.address} is bound to {driver}, which is no VFIO driver: name another driver.")


def _give_to(host: Host, device: Device, path: str, driver: str) -> None:
    """Writes the address to ``path`` and requires ``driver`` afterwards; the kernel's own reason where it refused."""
    with KernelLog(host, device.address) as log:
        _write(host, device, path, device.address, log)
        bound = sysfs.read_driver(host, device.address)
        if bound is None and sysfs.read_identity(host, device.address) is None:
            raise PassthroughError(f"{device.address} left the host while {driver} took it: look at the kernel log and "
                                   "the slot.")
        if bound != driver:
            raise PassthroughError(f"{device.address} is bound to {bound or 'no driver'} and not to {driver}: the "
                                   f"driver refused it. {_kernel_says(log)}")


def _write(host: Host, device: Device, path: str, value: str, log: Optional[KernelLog] = None) -> None:
    what = f"The kernel's work on writing {value.strip() or 'a newline'} to {path}"
    try:
        run_in_child(lambda: host.write_sysfs(path, value), device.timeout, what)
    except ChildTimeoutError as error:
        error.details["address"] = device.address
        raise
    except OSError as error:
        if sysfs.read_identity(host, device.address) is None:
            raise PassthroughError(f"{device.address} left the host while {value.strip() or 'a newline'} was written "
                                   f"to {path}: look at the kernel log and the slot.") from error
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise PassthroughError(f"The kernel refused {value.strip() or 'a newline'} on {path}: {reason}. "
                               f"{_kernel_says(log)}", errno=error.errno) from error


def _kernel_says(log: Optional[KernelLog]) -> str:
    reason = log.reason() if log else None
    return f"The kernel log says: {reason}." if reason else "The kernel log (dmesg) may say why."
