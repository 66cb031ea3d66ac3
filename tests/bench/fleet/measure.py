# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of Ansible over a fleet, measured: seconds, processor time, memory, calls."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hosts import Fleet

ROOT = Path(__file__).resolve().parents[3]
BIN = ROOT / ".venv" / "bin"
PLUGINS = ROOT / "tests" / "bench"
SAMPLE_SECONDS = 0.5
_CONTROLLER = (b"ansible", b"ansible-playbook")


@dataclass(frozen=True)
class Run:
    """``wall``, ``cpu`` (all of it) and ``host_cpu`` (what the commands on the hosts used) in seconds; ``main_memory``
    is the peak of the main process, ``memory`` the peak of it and its workers together, each in bytes; ``calls``
    counts module calls by name, ``changed`` the tasks that changed a host."""

    hosts: int
    wall: float
    cpu: float
    host_cpu: float
    main_memory: int
    memory: int
    calls: Counter[str]
    changed: int

    @property
    def controller_cpu(self) -> float:
        return self.cpu - self.host_cpu

    def calls_per_host(self) -> float:
        return sum(self.calls.values()) / self.hosts


class Memory(threading.Thread):
    """Samples a controller while it runs.

    Workers are forks of the main process and share most pages with it: the sum of their resident sizes would count
    these again for each worker. So what is added up is the proportional size (PSS), in which a page that n processes
    share counts 1/n for each. The main process alone has its own peak in VmHWM.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.main = 0
        self.all = 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(SAMPLE_SECONDS):
            with contextlib.suppress(OSError, ProcessLookupError):
                self.main = max(self.main, _field(f"/proc/{self.pid}/status", "VmHWM"))
            self.all = max(self.all, sum(map(_pss, _controller_processes(self.pid))))

    def stop(self) -> None:
        self.ended.set()
        self.join()


def _field(path: str, name: str) -> int:
    """A size of a file in /proc, in bytes."""
    with open(path, encoding="ascii", errors="replace") as stream:
        match = re.search(rf"^{name}:\s+(\d+) kB", stream.read(), re.MULTILINE)
    return int(match[1]) << 10 if match else 0


def _pss(pid: int) -> int:
    try:
        return _field(f"/proc/{pid}/smaps_rollup", "Pss")
    except OSError:
        return 0  # it ended


def _controller_processes(main: int) -> list[int]:
    """The main process and its descendants that are Ansible still, and not a command for a host yet."""
    found, waiting = [], [main]
    while waiting:
        pid = waiting.pop()
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/cmdline", "rb") as stream:
                words = stream.read().split(b"\0")
            if not any(os.path.basename(word) in _CONTROLLER for word in words[:2]):
                continue
            found.append(pid)
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as stream:
                    waiting += map(int, stream.read().split())
    return found


def measure(fleet: Fleet, *argv: str, **environment: str) -> Run:
    """Runs one of Ansible's commands over the whole fleet. A run that fails ends this program with its output."""
    calls, seconds, output = (fleet.directory / name for name in ("calls", "seconds", "output"))
    for path in (calls, seconds):
        path.write_text("")
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with output.open("w") as stream:
        process = subprocess.Popen([str(BIN / argv[0]), "-i", str(fleet.inventory), *argv[1:]], cwd=ROOT,
                                   stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
                                   env={**os.environ, **settings(fleet), "NVGRACE_COUNT_CALLS": str(calls),
                                        "NVGRACE_HOST_SECONDS": str(seconds), **environment})
        memory = Memory(process.pid)
        memory.start()
        status = process.wait()
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    memory.stop()
    if status:
        sys.exit(f"{' '.join(argv)} failed:\n{output.read_text()[-4000:]}")
    return Run(len(fleet.namespaces), wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
               sum(map(float, seconds.read_text().split())), memory.main, memory.all,
               Counter(line.split()[1] for line in calls.read_text().splitlines()),
               sum(map(int, re.findall(r"\bchanged=(\d+)", output.read_text()))))


def measure_site(fleet: Fleet, *options: str) -> Run:
    """A run of site.yml, whose records go where hosts.record looks for them."""
    return measure(fleet, "ansible-playbook", "site.yml", "-e", f"gpu_report_dir={fleet.directory}/reports", *options)


def settings(fleet: Fleet) -> dict[str, str]:
    """The environment of all runs. The report is written, and not shown."""
    return {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"), "ANSIBLE_INJECT_FACT_VARS": "false",
            "ANSIBLE_CONNECTION_PLUGINS": str(PLUGINS / "fleet" / "connection_plugins"),
            "ANSIBLE_CALLBACK_PLUGINS": str(PLUGINS / "callback_plugins"), "ANSIBLE_CALLBACKS_ENABLED": "count_calls",
            "ANSIBLE_LOAD_CALLBACK_PLUGINS": "true", "ANSIBLE_PIPELINING": "true", "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCAL_TEMP": str(fleet.directory / "ansible")}
