# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""What a lab is asked to be, checked before anything happens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import UsageError
from .products import Faults, Gpu, Product, check_count, find_product, place_gpus, split_faults
from .recipe import ARCHES, KERNELS, Arch, Kernel

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


@dataclass(frozen=True)
class Spec:
    """One lab: a name and the machine behind it. ``snapshots``: it can be saved while it runs, at a price.

    ``faults`` are those of the host and of all GPUs, ``fault_words`` all faults in the notation of the command line.
    """

    name: str
    arch: Arch
    kernel: Kernel
    product: Product
    gpus: tuple[Gpu, ...]
    faults: Faults
    fault_words: tuple[str, ...] = ()
    snapshots: bool = False

    @property
    def disk_kernel(self) -> Kernel:
        """Return the kernel whose image has the disk."""
        return KERNELS[self.kernel.disk] if self.kernel.disk else self.kernel


def check_name(name: str) -> str:
    """Return the name if it can be a directory, a host name and an inventory name. Raises UsageError."""
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a lab: lower-case letters, digits and inner hyphens, 32 at most.")
    return name


def find_arch(name: str) -> Arch:
    """Return an architecture by its Debian name. Raises UsageError for an unknown one."""
    if name not in ARCHES:
        raise UsageError(f"There is no architecture {name!r}; the lab knows {', '.join(ARCHES)}.")
    return ARCHES[name]


def find_kernel(name: str, arch: str) -> Kernel:
    """Return a kernel by its name. Raises UsageError for an unknown one, or one that is not for the architecture."""
    if name not in KERNELS:
        raise UsageError(f"There is no kernel {name!r}; the lab knows {', '.join(KERNELS)}.")
    kernel = KERNELS[name]
    if kernel.only_arch not in (None, arch):
        raise UsageError(f"The kernel {name!r} is for {kernel.only_arch} only; add --arch {kernel.only_arch}.")
    return kernel


def make_spec(name: str, arch: str, kernel: str, product: str, gpus: int, faults: Sequence[str],
              snapshots: bool = False) -> Spec:
    """Return the checked request. Raises UsageError with the first thing that is wrong with it."""
    found = find_product(product)
    common, own = split_faults(faults, check_count(gpus))
    return Spec(check_name(name), find_arch(arch), find_kernel(kernel, arch), found,
                place_gpus(found, gpus, common, own), common, tuple(faults), snapshots)
