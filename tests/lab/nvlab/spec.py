# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""What a lab is asked to be, checked before anything happens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import UsageError
from .products import (
    HOST_FAULTS,
    PRODUCTS,
    Faults,
    Gpu,
    Product,
    check_count,
    find_product,
    firmware_memory,
    place_gpus,
    split_faults,
)
from .recipe import ARCHES, KERNELS, LOADERS, Arch, Kernel, Loader

DIRECT = "direct"
# The ways to boot: by QEMU, which hands the kernel over, or by firmware and the boot loader that is named here.
BOOTS = {DIRECT: None, "firmware": LOADERS["grub"], "systemd-boot": LOADERS["systemd-boot"]}
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


@dataclass(frozen=True)
class Spec:
    """One lab: a name and the machine behind it. ``snapshots``: it can be saved while it runs, at a price.

    ``faults`` are those of the host and of all GPUs, ``gpu_faults`` for each GPU these and its own, ``fault_words`` all
    of them in the notation of the command line. ``hotplug``: its GPUs are behind root ports and can be taken out while
    it runs.
    """

    name: str
    arch: Arch
    kernel: Kernel
    product: Product
    gpus: tuple[Gpu, ...]
    faults: Faults
    gpu_faults: tuple[Faults, ...]
    fault_words: tuple[str, ...] = ()
    snapshots: bool = False
    boot: str = DIRECT
    secure_boot: bool = False
    hotplug: bool = False

    @property
    def loader(self) -> Loader | None:
        """Return the boot loader that firmware starts, or None."""
        return BOOTS[self.boot]

    def firmware_memory(self, gpu: Gpu) -> tuple[int, int] | None:
        """Return (base, size) in bytes as the host's kernel finds them in ACPI properties, or None.

        A kernel that Secure Boot has locked down takes no tables from the initrd, which is where the lab has them.
        """
        return None if self.secure_boot else firmware_memory(gpu, self.gpu_faults[gpu.index], self.arch.name)

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


def _check_boot(spec: Spec) -> None:
    loader = spec.loader
    if spec.secure_boot and (loader is None or not loader.signed):
        raise UsageError("Secure Boot needs a boot loader that is signed for it; add --boot firmware.")
    if loader is None:
        return
    if spec.kernel.second is None:
        known = ", ".join(kernel.name for kernel in KERNELS.values() if kernel.second)
        raise UsageError(f"The kernel {spec.kernel.name!r} is booted directly only; firmware boots {known}.")
    if spec.snapshots:
        raise UsageError("A host that firmware boots cannot be saved; leave out --snapshots or --boot.")


def _check_product(spec: Spec) -> None:
    product = spec.product
    if product.only_arch not in (None, spec.arch.name):
        raise UsageError(f"The product {product.name!r} is for {product.only_arch} hosts; "
                         f"add --arch {product.only_arch}.")
    senseless = [word for word in spec.fault_words if word.partition("=")[0] not in HOST_FAULTS]
    if senseless and not product.memory:
        raise UsageError(f"The fault {senseless[0]} is one of a GPU with coherent memory, and {product.name} has none.")
    if spec.hotplug and product.memory:
        known = ", ".join(one.name for one in PRODUCTS.values() if not one.memory)
        raise UsageError(f"{product.name} is no card that can be taken out; --hotplug is for {known}.")
    if spec.hotplug and spec.faults.shared_group:
        raise UsageError("The fault shared-group puts all GPUs into one slot, and --hotplug one into each.")


def make_spec(name: str, arch: str, kernel: str, product: str, gpus: int, faults: Sequence[str],
              snapshots: bool = False, *, boot: str = DIRECT, secure_boot: bool = False,
              hotplug: bool = False) -> Spec:
    """Return the checked request. Raises UsageError with the first thing that is wrong with it."""
    found = find_product(product)
    common, own = split_faults(faults, check_count(gpus))
    if boot not in BOOTS:
        raise UsageError(f"There is no boot {boot!r}; the lab knows {', '.join(BOOTS)}.")
    spec = Spec(check_name(name), find_arch(arch), find_kernel(kernel, arch), found,
                place_gpus(found, gpus, common.shared_group, hotplug), common, own, tuple(faults), snapshots, boot,
                secure_boot, hotplug)
    _check_boot(spec)
    _check_product(spec)
    return spec
