# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The debug kernel: Debian's source with everything on that finds mistakes, built once and kept in the cache.

The Debian root with its compiler and the source are the kernel module's own (files/kmod/tests).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .cache import KERNELS as KERNELS_LOCK
from .cache import Cache, digest
from .errors import LabError
from .processes import BUILD_MARK
from .recipe import KERNEL_ASSETS, KERNELS, SUITE
from .steps import run_logged, step

PREFIX = "debug-kernel-"
SOURCE = str(KERNELS["debug"].disk)
TOOLS = Path(__file__).resolve().parents[3] / "files" / "kmod" / "tests"
INPUTS = ("debug-kernel.sh", "debug.config")


def without_comments(text: str) -> str:
    """Return an input of the build without what does not matter to it; a line that switches an option off is none."""
    return "\n".join(line for line in text.splitlines() if line and (line[0] != "#" or line.startswith("# CONFIG_")))


def entry(cache: Cache) -> Path:
    """Return where the kernel is or will be."""
    inputs = [without_comments((KERNEL_ASSETS / name).read_text()) for name in INPUTS]
    return cache.entry(PREFIX + digest(SUITE, SOURCE, *inputs))


def read_facts(text: str) -> dict[str, str]:
    """Return what the build noted: a line "NAME VALUE" each."""
    return {name: value for name, _, value in (line.partition(" ") for line in text.splitlines())}


def _ask(cache: Cache, script: str, argument: str) -> Path:
    """Return the directory that one of the module's scripts provides; it says itself what takes it long."""
    answer = subprocess.run(["sh", str(TOOLS / script), argument], check=False, stdout=subprocess.PIPE, text=True,
                            env={**os.environ, "NVGRACE_LAB_CACHE": str(cache.root)})
    if answer.returncode != 0:
        raise LabError(f"{script} {argument} failed with status {answer.returncode}; its message is above.")
    return Path(answer.stdout.strip())


def _build(target: Path, source: Path, root: Path, log: Path) -> None:
    run_logged(["nice", "-n", "5", "sh", str(TOOLS / "enter.sh"), str(root), "--ro-bind", f"{source}:/mnt/source",
                "--ro-bind", f"{KERNEL_ASSETS}:/mnt/kernels", "--bind", f"{target}:/mnt/out", "--",
                "sh", "/mnt/kernels/debug-kernel.sh", "/mnt/source", "/mnt/kernels/debug.config", "/mnt/out"],
               log, {BUILD_MARK: str(target)})
    manifest = {"arch": "amd64", "kernel": "debug", "source": source.name, **read_facts((target / "facts").read_text())}
    (target / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


@contextlib.contextmanager
def _in_use(directory: Path) -> Iterator[None]:
    """Keep what the module's scripts provided from being removed as outdated, by the lock that they try before."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        if not directory.is_dir():
            raise LabError(f"{directory} has just been replaced by another command; try again.")
        yield
    finally:
        os.close(handle)


def provide(cache: Cache) -> Path:
    """Return the kernel's directory, building it when the cache has none with these inputs."""
    directory = entry(cache)
    if directory.is_dir():
        return directory
    root = _ask(cache, "buildroot.sh", SUITE)
    source = _ask(cache, "kernel-source.sh", SOURCE)
    with _in_use(source), step(f"build the debug kernel from Debian's linux-source-{SOURCE}"):
        return cache.provide(directory.name, lambda target: _build(target, source, root, cache.new_log(directory.name)),
                             KERNELS_LOCK)
