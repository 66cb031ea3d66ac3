# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Modules for the lab's debug kernel, built in the Debian root that has its compiler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from . import crossbuild
from .crossbuild import KMOD, BuildError
from .driver import Driver, collect_sources
from .host import LAB

ROOT = "trixie"
KUNIT = KMOD / "tests" / "kunit"


def tree() -> Path:
    """Return what modules are built against; builds the kernel if need be. Raises BuildError."""
    done = subprocess.run([LAB, "kernel-tree", "debug"], check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise BuildError("the lab has no debug kernel: lab kernel-tree debug failed")
    return Path(done.stdout.strip().splitlines()[-1])


def _make(directory: Path, below: str, *options: str) -> None:
    """Build what is ``below`` a directory. Raises BuildError, for a warning as well."""
    root = crossbuild.script("buildroot.sh", ROOT)
    binds = {tree(): "/mnt/tree", directory: "/mnt/module"}
    crossbuild.make(root, "/mnt/tree", f"/mnt/module/{below}", binds, *options)


def build_driver(driver: Driver, directory: Path) -> Path:
    """Build a driver in a directory that is made, and return the module. Raises BuildError."""
    directory.mkdir(parents=True)
    collect_sources(driver, directory)
    _make(directory, "", *(["W=1"] if driver.ours else []))
    return directory / driver.file


def build_kunit(directory: Path) -> list[Path]:
    """Build the KUnit suites in a directory that is made, and return their modules. Raises BuildError."""
    shutil.copytree(KMOD, directory, ignore=shutil.ignore_patterns("*.o", "*.ko", "*.cmd", "*.mod*"))
    _make(directory, KUNIT.relative_to(KMOD).as_posix())
    return sorted((directory / KUNIT.relative_to(KMOD)).glob("*.ko"))
