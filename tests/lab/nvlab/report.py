# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""What a lab looks like from outside: status as table and JSON, and an Ansible inventory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .products import Gpu, all_functions
from .ssh import CONNECT_TIMEOUT, option_words
from .state import Lab

COLUMNS = ("NAME", "STATE", "ARCH", "KERNEL", "PRODUCT", "GPUS", "FAULTS", "SSH", "ACCEL", "BOOT")


def as_data(lab: Lab, key: Path) -> dict[str, object]:
    """Return a lab as JSON data, in bytes. ``memory_*`` is the range that exists, ``firmware_*`` what ACPI says."""
    return {
        "name": lab.spec.name,
        "state": lab.state(),
        "arch": lab.spec.arch.name,
        "kernel": lab.spec.kernel.name,
        "product": lab.spec.product.name,
        "faults": list(lab.spec.fault_words),
        "boot": lab.spec.boot,
        "secure_boot": lab.spec.secure_boot,
        "hotplug": lab.spec.hotplug,
        "gpus": [_gpu_data(lab, gpu) for gpu in lab.spec.gpus],
        "ssh": {"port": lab.ssh_port, "key": str(key)},
        "accel": lab.accel,
        "pids": {name: process.pid for name, process in lab.processes.items()},
        "console": str(lab.files.console),
        "boot_seconds": lab.boot_seconds,
        "snapshots": lab.spec.snapshots,
        "snapshot": lab.snapshot,
    }


def _gpu_data(lab: Lab, gpu: Gpu) -> dict[str, object]:
    base, size = lab.spec.firmware_memory(gpu) or (None, None)
    memory = gpu.product.memory
    return {"address": gpu.address, "id": gpu.pci_id, "memory_base": gpu.memory_base if memory else None,
            "memory_size": memory or None, "firmware_base": base, "firmware_size": size,
            "nodes": list(gpu.nodes), "log": str(lab.files.gpu_log(gpu)),
            "companions": [{"address": function.address, "id": function.pci_id, "log": str(lab.files.gpu_log(function))}
                           for function in all_functions([gpu])[1:]]}


def _wanted(gpu: Gpu) -> dict[str, object]:
    # The lab's memory is far smaller than the product's, so the product table does not know it.
    return {"address": gpu.address, **({"expected_memory": gpu.product.memory} if gpu.product.memory else {})}


def _row(lab: Lab) -> tuple[str, ...]:
    spec = lab.spec
    boot = "-" if lab.boot_seconds is None else f"{lab.boot_seconds:.1f} s"
    return (spec.name, lab.state(), spec.arch.name, spec.kernel.name, spec.product.name, str(len(spec.gpus)),
            ",".join(spec.fault_words) or "-", str(lab.ssh_port), lab.accel, boot)


def table(labs: Sequence[Lab]) -> str:
    """Return the labs as a table with a header."""
    rows = [COLUMNS, *(_row(lab) for lab in labs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in rows)


def inventory(labs: Sequence[Lab], key: Path) -> str:
    """Return an Ansible inventory in YAML. JSON strings are YAML strings, whatever the path has in it."""
    lines = ["---", "all:", "  hosts:"]
    for lab in labs:
        variables = {
            "ansible_host": "127.0.0.1",
            "ansible_port": lab.ssh_port,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(key),
            "ansible_ssh_common_args": " ".join(["-F", "none", *option_words()]),
            "ansible_timeout": CONNECT_TIMEOUT,
            "ansible_python_interpreter": "/usr/bin/python3",
            "nvgrace_gpus": [_wanted(gpu) for gpu in lab.spec.gpus],
        }
        lines.append(f"    {lab.spec.name}:")
        lines += [f"      {name}: {json.dumps(value)}" for name, value in variables.items()]
    return "\n".join(lines)
