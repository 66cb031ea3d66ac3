# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The drivers under test: this project's, and the kernel's own under another name, so that both can be loaded."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import crossbuild
from .crossbuild import KMOD
from .host import Host, HostError

MODULES = "/root/kmod"
MAINLINE_KERNEL = "7.3"


@dataclass(frozen=True)
class Driver:
    """A driver: module name, which is its directory in sysfs, and the file that its build makes."""

    module: str
    file: str
    title: str

    @property
    def ours(self) -> bool:
        """Return whether it is this project's."""
        return self is OURS


OURS = Driver("nvgrace_gpu_vfio_pci", "nvgrace-gpu-vfio-pci.ko", "this driver")
MAINLINE = Driver("nvgrace_gpu_mainline", "nvgrace_gpu_mainline.ko", f"the kernel's own ({MAINLINE_KERNEL})")
DRIVERS = {"ours": OURS, "mainline": MAINLINE}


def our_sources() -> list[Path]:
    """Return the files that the module is made of."""
    return sorted(path for pattern in ("*.c", "*.h", "*.sh", "Kbuild", "Makefile") for path in KMOD.glob(pattern))


def collect_sources(driver: Driver, directory: Path) -> None:
    """Put what a driver is built from into a directory: of the kernel's own, the unchanged file under another name."""
    if driver.ours:
        for source in our_sources():
            (directory / source.name).write_bytes(source.read_bytes())
        return
    tree = crossbuild.script("kernel-source.sh", MAINLINE_KERNEL)
    source = tree / "drivers" / "vfio" / "pci" / "nvgrace-gpu" / "main.c"
    (directory / "main.c").write_bytes(source.read_bytes())
    (directory / "Kbuild").write_text(f"obj-m := {driver.module}.o\n{driver.module}-y := main.o\n", encoding="ascii")


def build(host: Host, driver: Driver) -> None:
    """Build a driver for the host and put it there.

    This project's is built on the host, as DKMS would, where that has headers; everything else in a build root.
    NVGRACE_KMOD_KO names one of ours that was built elsewhere. Raises HostError.
    """
    target = f"{MODULES}/{driver.module}"
    given = os.environ.get("NVGRACE_KMOD_KO") if driver.ours else None
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        if given:
            (directory / driver.file).write_bytes(Path(given).read_bytes())
        else:
            collect_sources(driver, directory)
            here = driver.ours and not host.run("test -d /lib/modules/$(uname -r)/build").returncode
            if here:
                host.put(sorted(directory.iterdir()), target)
                host.do(f"make -s -C /lib/modules/$(uname -r)/build M={target} W=1 modules", seconds=900)
                return
            facts = host.facts()
            try:
                crossbuild.build(directory, facts.kernel, facts.arch)
            except crossbuild.BuildError as error:
                raise HostError(f"{driver.title} cannot be built for {facts.kernel}: {error}") from error
        host.put([directory / driver.file], target)


def unbind(host: Host, address: str) -> None:
    """Leave a GPU without a driver."""
    host.do(f"""cd /sys/bus/pci/devices/{address}
        echo > driver_override
        [ ! -e driver ] || echo {address} > driver/unbind""")


def load(host: Host, driver: Driver, options: str = "") -> None:
    """Load the module anew with the given options; GPUs that it had are left without a driver."""
    host.do(f"""set -e
        modprobe vfio_iommu_type1
        modprobe vfio-pci-core
        [ ! -e /sys/module/{driver.module} ] || rmmod {driver.module}
        insmod {MODULES}/{driver.module}/{driver.file} {options}""")


def bind(host: Host, driver: Driver, address: str) -> None:
    """Give a GPU to the driver. Raises HostError when the driver refuses it."""
    unbind(host, address)
    host.do(f"""set -e
        echo {driver.module} > /sys/bus/pci/devices/{address}/driver_override
        echo {address} > /sys/bus/pci/drivers/{driver.module}/bind""")
