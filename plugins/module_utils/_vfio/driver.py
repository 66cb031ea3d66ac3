# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which driver is it: this collection's, the kernel's own of the same name, plain vfio-pci, or another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from .._core.host import Host
from .._gpu import sysfs

PLAIN_DRIVER = "vfio-pci"
COLLECTION, KERNEL, PLAIN, OTHER = "collection", "kernel", "vfio-pci", "other"
# include/linux/panic.h, TAINT_OOT_MODULE; the attribute "taint" of a module shows the letters of its own taints
_OUT_OF_TREE = "O"


@dataclass(frozen=True)
class DriverFacts:
    """A driver as sysfs shows it. ``layout`` is the value of its module parameter of that name, ``srcversion`` the hash
    of its source; both None where there is none, as for a driver in the kernel image."""

    name: Optional[str]
    srcversion: Optional[str] = None
    layout: Optional[str] = None
    out_of_tree: bool = False


def read_driver(host: Host, name: Optional[str]) -> DriverFacts:
    """The facts of a bound driver; of no driver where ``name`` is None."""
    module = sysfs.module_of_driver(host, name) if name else None
    if module is None:
        return DriverFacts(name)
    directory = f"/sys/module/{module}"
    return DriverFacts(name, host.read_text(f"{directory}/srcversion"),
                       host.read_text(f"{directory}/parameters/layout"),
                       _OUT_OF_TREE in (host.read_text(f"{directory}/taint") or ""))


def implementation(facts: DriverFacts, wide_reads_whole: Optional[bool] = None) -> Optional[str]:
    """collection, kernel, vfio-pci or other; None without a driver.

    Ours has the parameter ``layout``, which the kernel's own has not. That one is part of the kernel. One that was
    built apart (a vendor's package) shows in ``wide_reads_whole``, which is None where the device was not opened:
    with it, a read of config space over several emulated BARs lacks all but one.
    """
    if facts.name is None:
        return None
    if facts.name == PLAIN_DRIVER:
        return PLAIN
    if facts.layout is not None:
        return COLLECTION
    if not facts.out_of_tree or wide_reads_whole is False:
        return KERNEL
    return OTHER
