# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGKILL at each point of the work of a module, on a real kernel: the next run brings the host to the end, and giving
it back leaves nothing behind."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulated import ENVIRONMENT, GPU, LAB, ROOT, SECOND_GPU, EmulatedHost, start

KILLER = Path(__file__).resolve().parent / "killer" / "sitecustomize.py"
PYTHON = "/root/killer/python"
COUNT = "/root/killer/count"
BIND: dict[str, Any] = {"gpus": [{"address": GPU}, {"address": SECOND_GPU}], "driver": "vfio-pci"}
RELEASE: dict[str, Any] = {"state": "released"}
CONFIGURE: dict[str, Any] = {"modprobe_blacklist": ["nouveau"], "modules_load": ["loop"], "memlock": "unlimited",
                             "hugepages": {"size": "2M", "count": 4}, "hold_kernel": True, "update_initramfs": "never"}
UNCONFIGURE: dict[str, Any] = {"state": "absent", "update_initramfs": "never"}
# What the modules write, their own notes among it; the manifest has all functions' drivers in any case.
STATE = ("/etc", "/var/lib/nvgrace-passthrough", "/run/udev/rules.d")
BUILT_STATE = (*STATE, "/usr/src", "/var/lib/dkms", "/lib/modules/$(uname -r)")
BUILD: dict[str, Any] = {}
REMOVE: dict[str, Any] = {"state": "absent"}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedHost]:
    """A host with two GPUs in one IOMMU group, where a module can be killed."""
    lab = start("kill", tmp_path_factory.mktemp("lab"), "--gpus", "2", "--fault", "shared-group")
    lab.script(f"mkdir -p /root/killer\ncat > /root/killer/sitecustomize.py <<'END'\n{KILLER.read_text()}\nEND\n"
               f"printf '#!/bin/sh\\n. /root/killer/settings\\nexec /usr/bin/python3 \"$@\"\\n' > {PYTHON}\n"
               f"chmod +x {PYTHON}\n")
    yield lab
    subprocess.run([LAB, "stop", "kill"], check=True)


def run_killed(host: EmulatedHost, module: str, arguments: dict[str, Any], at: str, on: str) -> int:
    """Runs a module that is killed at point ``at``, and returns how many points were reached before it."""
    host.script(f"rm -f {COUNT}\nprintf 'export PYTHONPATH=/root/killer NVGRACE_KILL_AT={at} NVGRACE_KILL_ON={on} "
                f"NVGRACE_KILL_LOG={COUNT}\\n' > /root/killer/settings\n")
    result = host.module(module, arguments, "-e", f"ansible_python_interpreter={PYTHON}")
    reached = int(host.script(f"cat {COUNT} 2>/dev/null || echo 0"))
    assert result["failed"] == (at != "count"), result
    return reached


def every_point(host: EmulatedHost, module: str, work: dict[str, Any], undo: dict[str, Any], on: str,
                trees: tuple[str, ...] = STATE, ignored: str = r"(?!)") -> None:
    """Goes through the points of ``work`` and of ``undo``; each time the next run must reach the same end."""
    def settled() -> dict[str, Any]:
        host.script("while pgrep -x dkms >/dev/null; do sleep 1; done; udevadm settle")
        return {part: {key: value for key, value in entries.items() if not re.search(ignored, key)}
                for part, entries in host.manifest(*trees).items()}

    # The first work of all makes what stays: keys, byte code, indexes of depmod.
    assert not host.module(module, work)["failed"]
    assert not host.module(module, undo)["failed"]
    before = settled()
    points = run_killed(host, module, work, "count", on)
    after = settled()
    undo_points = run_killed(host, module, undo, "count", on)
    assert settled() == before
    assert after != before and points and undo_points
    print(f"{module}: {points} points of the work, {undo_points} of its undoing")
    for point in range(points):
        assert run_killed(host, module, work, str(point), on) == point
        again = host.module(module, work)
        assert not again["failed"], f"after a kill at point {point}: {again}"
        assert settled() == after, f"killed at point {point} of the work"
        assert not host.module(module, work)["changed"], f"not settled after a kill at point {point}"
        assert not host.module(module, undo)["failed"]
        assert settled() == before, f"undone after a kill at point {point}"
    for point in range(undo_points):
        assert not host.module(module, work)["failed"]
        assert run_killed(host, module, undo, str(point), on) == point
        again = host.module(module, undo)
        assert not again["failed"], f"after a kill at point {point} of the undoing: {again}"
        assert settled() == before, f"killed at point {point} of the undoing"


def test_bind(host: EmulatedHost) -> None:
    every_point(host, "gpu_driver", BIND, RELEASE, "change")


def test_host_configuration(host: EmulatedHost) -> None:
    every_point(host, "host_config", CONFIGURE, UNCONFIGURE, "change")


# A module that was built twice has another signature and another time in it.
BUILT = r"/nvgrace-gpu-vfio-pci\.ko|/make\.log|kmod\.json"


def test_build(host: EmulatedHost) -> None:
    every_point(host, "dkms_module", BUILD, REMOVE, "step", BUILT_STATE, BUILT)


def test_build_that_dies_with_all_its_processes(host: EmulatedHost) -> None:
    """As a host that loses its power in the middle of the compilation, the installation, and depmod."""
    for seconds in (2, 6, 12, 25, 40):
        run = subprocess.Popen(host.command("dkms_module", BUILD), cwd=ROOT, env=ENVIRONMENT,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # Seconds of the host's own, since DKMS began: how long all before it takes depends on the machine. pkill fails
        # where nothing of a name runs any more, which is no failure here: what is asked is what the next run finds.
        host.script("until pgrep -f 'dkms (add|build)' >/dev/null; do sleep 0.1; done\n"
                    f"sleep {seconds}; pkill -KILL python3 || true; pkill -KILL -f 'dkms|make|gcc|cc1|depmod' || true")
        run.wait(300)
        again = host.module("dkms_module", BUILD)
        assert not again["failed"], f"after a kill at {seconds} s: {again}"
        assert [kernel["state"] for kernel in again["kernels"]] == ["installed"]
        assert not host.module("dkms_module", BUILD)["changed"]
        assert not host.module("dkms_module", REMOVE)["failed"]
        assert "nvgrace" not in host.run("dkms", "status")
