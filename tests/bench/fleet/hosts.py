# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet of simulated hosts: their namespaces and their inventory."""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mounts
from tree import make_tree

from ansible_collections.nvgrace.passthrough.tests.unit._gpu.trees import GB200

_SPARE_FILES = 64


@dataclass(frozen=True)
class Fleet:
    """Hosts below ``directory`` with their mount namespaces, gone with this process. All begin as the same tree."""

    directory: Path
    namespaces: dict[str, str]

    @property
    def inventory(self) -> Path:
        return self.directory / "hosts.json"

    def write_inventory(self, **variables: Any) -> None:
        """All hosts with the same wishes: four GPUs, and a domain with all of them."""
        wishes = {
            "ansible_connection": "simulated",
            "ansible_python_interpreter": "/usr/local/sbin/python3",
            "nvgrace_gpus": [{"address": address} for address in GB200],
            "nvgrace_vms": [{"name": "tenant", "vcpus": 128, "memory": "512GiB", "gpus": len(GB200)}],
            **variables,
        }
        hosts = {name: {"fleet_namespace": path} for name, path in self.namespaces.items()}
        self.inventory.write_text(json.dumps({"all": {"vars": wishes, "hosts": hosts}}))


@contextlib.contextmanager
def fleet(count: int, work: Path) -> Iterator[Fleet]:
    """Makes the hosts; ``mounts.enter_own_namespace`` was called before."""
    with tempfile.TemporaryDirectory(prefix="fleet-", dir=work) as directory:
        mounts.mount("tmpfs", directory, "tmpfs", 0, "mode=0755")
        try:
            tree = Path(directory, "tree")
            tree.mkdir()
            make_tree(tree)
            yield _make_hosts(Path(directory), [tree], count)
        finally:
            mounts.detach(directory)


def more_of(first: Fleet, count: int) -> Fleet:
    """A fleet of ``count`` hosts that begin as what became of the first host of another one."""
    directory = first.directory / "more"
    directory.mkdir()
    return _make_hosts(directory, [first.directory / "hosts" / next(iter(first.namespaces)) / "upper",
                                   first.directory / "tree"], count)


def on_host(hosts: Fleet, *argv: str) -> str:
    """What a command on the only host of a fleet prints."""
    (namespace,) = hosts.namespaces.values()
    return subprocess.run(["nsenter", f"--mount={namespace}", "--wd=/", *argv], check=True, capture_output=True,
                          text=True).stdout


def record(hosts: Fleet) -> dict[str, Any]:
    """What the last run has reported of the only host of a fleet."""
    (path,) = (hosts.directory / "reports").glob("*.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _make_hosts(directory: Path, layers: Sequence[Path], count: int) -> Fleet:
    _allow_files(count + _SPARE_FILES)
    made = Fleet(directory, {name: mounts.make_namespace(layers, directory / "hosts" / name)
                             for name in (f"gb200-{number:04}" for number in range(1, count + 1))})
    made.write_inventory()
    return made


def _allow_files(count: int) -> None:
    """Each namespace is an open file of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, count), hard), hard))
