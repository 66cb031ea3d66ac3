# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""An emulated host that runs: commands in it, files into it, its GPUs. All through tests/lab/lab."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[2]
LAB = TESTS / "lab" / "lab"
# No DVSEC that says the MIG hardware bug is fixed: the products of the Hopper family.
MIG_BUG = {"10de:2342", "10de:2345", "10de:2348"}
CXL = {"10de:3041"}


class HostError(Exception):
    """A host does not do what the tests need; the text is one sentence."""


@dataclass(frozen=True)
class Gpu:
    """A GPU of the host: PCI address and id; where its memory is and how much firmware says it is (bytes)."""

    address: str
    pci_id: str
    memory_base: int
    memory_size: int

    @property
    def mig_bug(self) -> bool:
        """Return whether the memory is split in two."""
        return self.pci_id in MIG_BUG


@dataclass(frozen=True)
class Facts:
    """What the lab says of a host."""

    kernel: str
    arch: str
    product: str
    faults: tuple[str, ...]
    gpus: tuple[Gpu, ...]


def _gpu(data: dict[str, Any]) -> Gpu:
    # Firmware that says something else is a fault of the lab; where it says nothing, nobody asks for the size.
    size = data["firmware_size"] or data["memory_size"]
    return Gpu(data["address"], data["id"], data["memory_base"], size)


class Host:
    """One host by its lab's name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def facts(self) -> Facts:
        """Return what the host is. Raises HostError when the lab does not know it."""
        done = subprocess.run([LAB, "status", self.name, "--json"], check=False, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise HostError(f"There is no host {self.name}: start it with tests/lab/lab start {self.name}.")
        data = json.loads(done.stdout)[0]
        gpus = tuple(_gpu(gpu) for gpu in data["gpus"])
        return Facts(data["kernel"], data["arch"], data["product"], tuple(data["faults"]), gpus)

    def command(self, text: str) -> list[str]:
        """Return the argv that runs a shell command on the host."""
        return [str(LAB), "ssh", self.name, "--", text]

    def run(self, text: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a shell command on the host; its output is in the result, whatever its status: 124 after the seconds."""
        # timeout(1) ends ssh as well, which else would keep the pipes open.
        argv = ["timeout", "--kill-after=5", str(seconds), *self.command(text)]
        return subprocess.run(argv, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    def make_ready(self, gpu: Gpu, index: int) -> None:
        """Have a GPU ready, now and after every reset."""
        for request in ("ready", *(("info-valid", "answering") if gpu.pci_id in CXL else ())):
            self.gpu(request, index)

    def do(self, text: str, seconds: float = 300) -> str:
        """Run a shell command that has to succeed and return its output. Raises HostError."""
        done = self.run(text, seconds)
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines() or [f"no output, status {done.returncode}"]
            raise HostError(f"On {self.name}, {text.strip().splitlines()[0]!r} failed: {lines[-1]}")
        return done.stdout

    def put(self, sources: Sequence[Path], directory: str) -> None:
        """Copy files into a directory of the host that is made anew."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for source in sources:
                tar.add(source, source.name)
        unpack = f"rm -rf {directory} && mkdir -p {directory} && tar --no-same-owner -C {directory} -xf -"
        subprocess.run(self.command(unpack), check=True, input=archive.getvalue(), stdout=subprocess.DEVNULL)

    def gpu(self, request: str, index: int = 0) -> None:
        """Tell a GPU to be ready, not-ready, ready-after SECONDS."""
        subprocess.run([LAB, "gpu", self.name, str(index), *request.split()], check=True, stdout=subprocess.DEVNULL)

    def reset(self) -> None:
        """Reboot a host whose kernel is hurt: nothing is shut down. Its disk and its GPUs survive."""
        self.run("echo s > /proc/sysrq-trigger; sleep 2; echo b > /proc/sysrq-trigger", seconds=20)
        wait = [LAB, "wait", self.name, "--timeout", "60"]
        if subprocess.run(wait, check=False, stdout=subprocess.DEVNULL).returncode:
            # One that does not even do that.
            subprocess.run([LAB, "reboot", self.name], check=True, stdout=subprocess.DEVNULL)
