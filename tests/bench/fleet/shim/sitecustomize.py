# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel of a simulated host, for the modules that run there: sysfs that reacts, VFIO devices, the architecture.

A simulated host shows an interpreter this file. The modules are the real ones; what is put in place when they are
loaded is what the unit tests put in place: the write to a sysfs attribute, and the system calls on a VFIO device.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from types import ModuleType
from typing import Any, Callable, Optional

HERE = os.path.dirname(os.path.abspath(__file__))
PLUGINS = "ansible_collections.nvgrace.passthrough.plugins.module_utils."
GIB, MIB = 1 << 30, 1 << 20
GPU_FILES = "/var/lib/fleet-gpu"


def load(name: str) -> ModuleType:
    """A fake of the unit tests, by its file."""
    spec = importlib.util.spec_from_file_location(name, f"{HERE}/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def react(module: ModuleType) -> None:
    """Writes to sysfs do what they do in the unit tests' host."""

    def write_sysfs(_host: Any, path: str, value: str) -> None:
        load("sysfs").Sysfs().write_sysfs(path, value)

    module.Host.write_sysfs = write_sysfs  # type: ignore[attr-defined]


def answer(module: ModuleType) -> None:
    """VFIO shows a GB200 with the physical BARs of the tree, and 186 GiB of memory in a BAR of 256 GiB."""
    from pathlib import Path

    fake = load("fake_kernel")
    regions = {0: fake.Region(64 * MIB), 2: fake.Region(256 * GIB), 4: fake.Region(256 * GIB, 186 * GIB),
               7: fake.Region(4096, flags=3)}

    def kernel() -> Any:
        os.makedirs(GPU_FILES, exist_ok=True)
        made = fake.FakeKernel(Path(GPU_FILES), regions)
        os.truncate(made.memory, 186 * GIB)
        return made

    module.Kernel = kernel  # type: ignore[attr-defined]


PATCHES: dict[str, Callable[[ModuleType], None]] = {
    f"{PLUGINS}_core.host": react,
    f"{PLUGINS}_vfio.device": answer,
}


class Patched:
    """A loader that patches what the real one, which serves many modules, has loaded."""

    def __init__(self, loader: Any, patch: Callable[[ModuleType], None]) -> None:
        self.loader = loader
        self.patch = patch

    def create_module(self, _spec: Any) -> None:
        """The usual one."""

    def exec_module(self, module: ModuleType) -> None:
        # By its code: the zipimporter of Python 3.9 has no exec_module.
        exec(self.loader.get_code(module.__name__), module.__dict__)
        self.patch(module)


class Finder:
    """Lets the other finders find a module, and has it patched."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Optional[Any]:
        patch = PATCHES.pop(name, None)
        spec = importlib.util.find_spec(name) if patch else None
        if patch and spec is not None:
            spec.loader = Patched(spec.loader, patch)
        return spec


def of_this_host() -> Callable[[], os.uname_result]:
    """What os.uname says here: /proc is the host's own, the system call is not."""
    real = os.uname()
    with open("/proc/sys/kernel/arch", encoding="ascii") as arch, \
            open("/proc/sys/kernel/osrelease", encoding="ascii") as release:
        names = os.uname_result((real.sysname, real.nodename, release.read().strip(), real.version,
                                 arch.read().strip()))
    return lambda: names


os.uname = of_this_host()
sys.meta_path.insert(0, Finder())
