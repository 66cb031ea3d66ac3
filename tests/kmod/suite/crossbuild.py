# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Builds a module for a kernel of any suite and architecture, in the Debian roots of files/kmod/tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

KMOD = Path(__file__).resolve().parents[3] / "files" / "kmod"
# Kernel -> suite of the root that has its headers and their compiler.
ROOTS = {"6.1": "bookworm", "6.12": "trixie", "7.2": "forky", "7.3": "trixie"}
CROSS = {"amd64": (), "arm64": ("ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-")}


class BuildError(Exception):
    """A module was not built; the text is the first line that says why."""


def script(name: str, *arguments: str) -> Path:
    """Return the path that a script of files/kmod/tests prints last. Raises BuildError."""
    done = subprocess.run(["sh", KMOD / "tests" / name, *arguments], check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise BuildError(f"{name} {' '.join(arguments)} failed")
    return Path(done.stdout.strip().splitlines()[-1])


def headers(root: Path, kernel: str, arch: str) -> str:
    """Return the directory of a kernel's headers within a root. Raises BuildError when the root has none."""
    for line in (root / "kernels").read_text(encoding="ascii").splitlines():
        if line.split()[:2] == [kernel, arch]:
            return line.split()[2]
    raise BuildError(f"the build root has no headers of {kernel} for {arch}")


def make(root: Path, tree: str, module: str, binds: Mapping[Path, str], *options: str) -> None:
    """Build what is in ``module`` against ``tree``: paths within the root, where ``binds`` puts directories of ours.

    Raises BuildError, for a warning as well.
    """
    words = [word for directory, target in binds.items() for word in ("--bind", f"{directory}:{target}")]
    argv = ["sh", KMOD / "tests" / "enter.sh", root, *words, "--", "make", "-s", "-C", tree, f"M={module}", *options,
            "modules"]
    done = subprocess.run([os.fspath(word) for word in argv], check=False, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wrong = [line for line in done.stdout.splitlines() if "error:" in line or "warning:" in line]
    if done.returncode or wrong:
        raise BuildError((wrong or done.stdout.splitlines() or ["make said nothing"])[0])


def build(directory: Path, kernel: str, arch: str, *options: str) -> None:
    """Build the module whose sources are in a directory. Raises BuildError, for a warning as well."""
    root = script("buildroot.sh", ROOTS[kernel])
    make(root, headers(root, kernel, arch), "/build", {directory: "/build"}, *CROSS[arch], *options)
