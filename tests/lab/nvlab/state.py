# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The state of each lab: one JSON file that says what was asked for and what was started."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .argv import Files
from .cache import Cache
from .errors import LabError, UsageError
from .processes import ProcessId
from .spec import DIRECT, Spec, check_name, make_spec

STATE_FILE = "state.json"
STARTING, RUNNING, STOPPED, DEAD = "starting", "running", "stopped", "dead"


@dataclass(frozen=True)
class Lab:
    """A lab as its state file has it. ``boot_seconds`` is the time from QEMU's start to the first ssh login.

    ``kernel`` is the directory of a kernel that takes the place of the image's own, ``boot`` that of a disk that does.
    """

    spec: Spec
    files: Files
    phase: str
    ssh_port: int
    accel: str
    image: Path
    processes: Mapping[str, ProcessId]
    boot_seconds: float | None = None
    snapshot: bool = False
    kernel: Path | None = None
    boot: Path | None = None

    def state(self) -> str:
        """Return starting, running, stopped, or dead when a process that should run does not."""
        if self.phase == STOPPED:
            return STOPPED
        return self.phase if all(process.alive() for process in self.processes.values()) else DEAD


def images_in_use(cache: Cache) -> set[Path]:
    """Return the images and kernels that a lab boots from: they may not be removed."""
    labs = [lab for lab in load_all(cache) if lab.state() in (STARTING, RUNNING) or lab.snapshot]
    return {path for lab in labs for path in (lab.image, lab.kernel, lab.boot) if path is not None}


def lab_directory(cache: Cache, name: str) -> Path:
    """Return the directory of a lab, whether it exists or not."""
    return cache.labs / name


def save(lab: Lab) -> None:
    """Write the state file; a reader sees the old one or the new one."""
    spec = lab.spec
    data = {
        "name": spec.name, "arch": spec.arch.name, "kernel": spec.kernel.name, "product": spec.product.name,
        "gpus": len(spec.gpus), "faults": list(spec.fault_words), "snapshots": spec.snapshots,
        "boot": spec.boot, "secure_boot": spec.secure_boot, "hotplug": spec.hotplug, "phase": lab.phase,
        "ssh_port": lab.ssh_port, "accel": lab.accel, "image": str(lab.image),
        "kernel_directory": None if lab.kernel is None else str(lab.kernel),
        "boot_directory": None if lab.boot is None else str(lab.boot), "run": str(lab.files.run),
        "boot_seconds": lab.boot_seconds, "snapshot": lab.snapshot,
        "processes": {name: [process.pid, process.started] for name, process in lab.processes.items()},
    }
    path = lab.files.directory / STATE_FILE
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(data, indent=2) + "\n")
    os.replace(temporary, path)


def load(cache: Cache, name: str) -> Lab | None:
    """Return a lab, or None when there is no such lab. Raises LabError for a state file that cannot be read."""
    directory = lab_directory(cache, check_name(name))
    path = directory / STATE_FILE
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_text())
        spec = make_spec(data["name"], data["arch"], data["kernel"], data["product"], data["gpus"], data["faults"],
                         data.get("snapshots", False), boot=data.get("boot", DIRECT),
                         secure_boot=data.get("secure_boot", False), hotplug=data.get("hotplug", False))
        kernel, boot = (None if data.get(name) is None else Path(data[name])
                        for name in ("kernel_directory", "boot_directory"))
        return Lab(spec, Files(directory, Path(data["run"])), data["phase"], data["ssh_port"], data["accel"],
                   Path(data["image"]), {key: ProcessId(*pair) for key, pair in data["processes"].items()},
                   data["boot_seconds"], data.get("snapshot", False), kernel, boot)
    except (ValueError, KeyError, TypeError, UsageError) as error:
        raise LabError(f"{path} cannot be read ({error}); end its processes by hand and remove {directory}.") from error


def load_all(cache: Cache) -> list[Lab]:
    """Return every lab of the cache, by name."""
    names = sorted(path.parent.name for path in cache.labs.glob(f"*/{STATE_FILE}"))
    return [lab for lab in (load(cache, name) for name in names) if lab is not None]


def require(cache: Cache, name: str) -> Lab:
    """Return a lab. Raises UsageError when there is none of this name."""
    lab = load(cache, name)
    if lab is None:
        known = ", ".join(other.spec.name for other in load_all(cache)) or "none"
        raise UsageError(f"There is no lab {name!r} (there is: {known}); start it with 'lab start {name}'.")
    return lab


def require_running(cache: Cache, name: str) -> Lab:
    """Return a running lab. Raises UsageError when it does not exist or does not run."""
    lab = require(cache, name)
    if lab.state() != RUNNING:
        raise UsageError(f"The lab {name!r} is {lab.state()}; start it with 'lab start {name}'.")
    return lab
