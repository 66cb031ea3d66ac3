# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The hosts that the whole contract needs: products, faults, kernels."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .host import LAB, Host, HostError


@dataclass(frozen=True)
class Machine:
    """A host as the lab starts it."""

    product: str = "gh200-120gb"
    kernel: str = "7.3"
    arch: str = "arm64"
    faults: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Return what tells it from the others."""
        return "-".join((self.arch, self.kernel, self.product, *self.faults))

    def argv(self, name: str) -> list[str]:
        """Return the lab's command that starts it."""
        words = [str(LAB), "start", name, "--product", self.product, "--kernel", self.kernel, "--arch", self.arch]
        return words + [word for fault in self.faults for word in ("--fault", fault)]


HOSTS = (
    Machine(),
    Machine(product="gh200-480gb"),
    Machine(product="gh200-144gb"),
    Machine(product="gb200"),
    Machine(product="gb300"),
    Machine(product="vera-cxl"),
    Machine(faults=("no-properties",)),
    Machine(faults=("size-zero",)),
    Machine(faults=("range-in-ram",)),
    Machine(faults=("range-wraps",)),
    Machine(faults=("range-unreachable",)),
    Machine(faults=("base-in-page",)),
    Machine(product="gb200", faults=("odd-size",)),
    Machine(faults=("odd-size",)),
    Machine(product="gh200-480gb", kernel="6.12"),
    Machine(product="gh200-480gb", kernel="6.1", arch="amd64"),
    Machine(product="gh200-480gb", kernel="7.2", arch="amd64"),
    Machine(product="gh200-480gb", arch="amd64"),
)


@contextmanager
def running(machine: Machine, name: str) -> Iterator[Host]:
    """Start a host, and stop it whatever happens. Raises HostError when it does not start."""
    if subprocess.run(machine.argv(name), check=False, stdin=subprocess.DEVNULL).returncode:
        raise HostError(f"The host {machine.title} did not start.")
    try:
        yield Host(name)
    finally:
        subprocess.run([LAB, "stop", name], check=False, stdin=subprocess.DEVNULL)
