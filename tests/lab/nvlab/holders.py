# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Processes on a host that have a GPU in use, for tests of what is done about a GPU that is in use."""

from __future__ import annotations

from pathlib import Path

from .errors import LabError, UsageError
from .products import Gpu
from .ssh import Login

KINDS = ("vfio", "nvidia")
ASSETS = Path(__file__).resolve().parent.parent / "holder"
TARGET = "/usr/src/nvgrace-lab-holder"
TIMEOUT = 600.0  # seconds; a module is built on an emulated host


def hold(login: Login, gpu: Gpu, kind: str) -> dict[str, object]:
    """Start a process that has the GPU's device node open. Returns its pid and the node.

    Raises UsageError for an unknown kind, LabError when the host cannot do it, a second time for one.
    """
    if kind not in KINDS:
        raise UsageError(f"Nobody holds a GPU as {kind!r}; the lab knows {', '.join(KINDS)}.")
    login.run(f"mkdir -p {TARGET}")
    login.upload(ASSETS, TARGET)
    words = login.run(f"sh {TARGET}/hold.sh {kind} {gpu.address}", TIMEOUT).split()
    if len(words) != 2:
        raise LabError(f"The host answered something unexpected: {words}")
    return {"pid": int(words[0]), "node": words[1]}


def let_go(login: Login, gpu: Gpu) -> None:
    """End every such process of the GPU. Its driver keeps the function."""
    login.run(f"systemctl stop 'nvgrace-lab-hold-*-{gpu.address}.service'")
