# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The drivers under test: this project's, and the kernel's own under another name, so that both can be loaded."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .host import TESTS, Host, HostError

KMOD = TESTS.parent / "files" / "kmod"
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


def mainline_sources(directory: Path) -> list[Path]:
    """Put the kernel's driver, unchanged, and a Kbuild that gives it another name into a directory."""
    script = KMOD / "tests" / "kernel-source.sh"
    done = subprocess.run(["sh", script, MAINLINE_KERNEL], check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise HostError(f"The source of kernel {MAINLINE_KERNEL} is missing: {script.name} failed.")
    tree = Path(done.stdout.strip().splitlines()[-1])
    source = tree / "drivers" / "vfio" / "pci" / "nvgrace-gpu" / "main.c"
    (directory / "main.c").write_bytes(source.read_bytes())
    name = MAINLINE.module
    (directory / "Kbuild").write_text(f"obj-m := {name}.o\n{name}-y := main.o\n", encoding="ascii")
    return sorted(directory.iterdir())


def build(host: Host, driver: Driver) -> None:
    """Build a driver on the host, unless NVGRACE_KMOD_KO names one of ours that was built elsewhere."""
    given = os.environ.get("NVGRACE_KMOD_KO")
    if driver.ours and given:
        with tempfile.TemporaryDirectory() as directory:
            copy = Path(directory) / OURS.file
            copy.write_bytes(Path(given).read_bytes())
            host.put([copy], f"{MODULES}/{driver.module}")
        return
    with tempfile.TemporaryDirectory() as directory:
        sources = our_sources() if driver.ours else mainline_sources(Path(directory))
        host.put(sources, f"{MODULES}/{driver.module}")
    warnings = "W=1" if driver.ours else ""
    host.do(f"make -s -C /lib/modules/$(uname -r)/build M={MODULES}/{driver.module} {warnings} modules", seconds=900)


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
