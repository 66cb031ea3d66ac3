# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records of hosts as host_report writes them, made out of what the modules return, and fleets of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.fleet import Fleet, Problem, merge
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.model import build_report
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.parse import parse_record
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.record import Record

MIB, GIB = 1 << 20, 1 << 30
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=timezone.utc)
ADDRESS = "0009:01:00.0"
PRODUCT = "GH200 120GB (96 GiB HBM3)"

FACTS: dict[str, Any] = {
    "kernel": {"release": "7.3.4+deb13-arm64", "machine": "aarch64", "page_size": 65536, "cmdline": "root=/dev/vda rw",
               "config": {"IOMMUFD": "m", "NODES_SHIFT": 6}},
    "distribution": {"id": "debian", "version_id": "13", "like": []},
    "iommu": {"present": True, "kind": "arm-smmu-v3", "groups": 12, "isolated_msi": True, "default_domain": "DMA",
              "iommufd": True, "cdev": True},
    "secure_boot": "enabled", "lockdown": "integrity",
    "module_signature": {"module": "nvgrace-gpu-vfio-pci", "path": None, "signer": "the operator", "trust": "enrolled"},
    "hugepages": [{"size": 2 * MIB, "total": 0, "free": 0}, {"size": GIB, "total": 16, "free": 16}],
    "numa": {"firmware_domains": 3, "nodes": [
        {"id": 0, "cpus": "0-71", "memory": 480 * GIB, "distances": [10, 80], "generic_initiator": False},
        {"id": 1, "cpus": "", "memory": 0, "distances": [80, 10], "generic_initiator": True}]},
    "dkms": {"present": True, "version": "3.2.2", "path": "/usr/sbin/dkms"},
    "libvirt": {"present": True, "version": "11.3.0", "daemon_running": True, "uri_ok": True, "reason": None},
    "qemu": {"present": True, "version": "10.0.13", "path": "/usr/bin/qemu-system-aarch64"},
    "profiles": ["compat"],
}


def check(name: str, status: str = "ok", why: str = "It is there.", remedy: str | None = None) -> dict[str, Any]:
    return {"id": name, "status": status, "why": why, "remedy": remedy}


def region(index: int, role: str, reported: int, actual: int | None = None, **changes: Any) -> dict[str, Any]:
    size = reported if actual is None else actual
    return {"index": index, "name": f"BAR{index}", "role": role, "reported": reported, "actual": size,
            "flags": ["read", "write", "mmap"], "sparse": [{"offset": 0, "size": size}], "verdict": "ok", "reasons": [],
            **changes}


def device(address: str = ADDRESS, memory: int | None = 96 * GIB, **changes: Any) -> dict[str, Any]:
    """A GPU as region_verify returns it."""
    return {"address": address, "driver": "nvgrace_gpu_vfio_pci", "srcversion": "A1B2", "api": "cdev",
            "implementation": "mainline", "layout": "mainline", "verdict": "ok", "reasons": [], "from_record": False,
            "verified_at": "2026-11-20T11:59:00Z",
            "memory": {"expected": memory, "seen": memory, "source": "product"},
            "regions": [region(0, "physical", 16 * MIB, sparse=[]), region(1, "absent", 0, sparse=[], flags=[]),
                        region(2, "resmem", GIB), region(4, "usemem", 128 * GIB, 95 * GIB)], **changes}


def gpu(address: str = ADDRESS, **changes: Any) -> dict[str, Any]:
    """A GPU as gpu_info returns it."""
    return {"address": address, "vendor": "10de", "device": "2342", "product": PRODUCT, "driver": "nvidia",
            "driver_override": None, "iommu_group": 3, "numa_node": 0, "generic_initiator_nodes": [1],
            "group_members": [{"address": address, "kind": "gpu", "driver": "nvidia"},
                              {"address": "0009:00:00.0", "kind": "bridge", "driver": "pcieport"}],
            "best_variant": {"module": "nvgrace_gpu_vfio_pci", "driver": None, "source": "modules.alias"},
            "bars": [{"index": 0, "size": 16 * MIB}, {"index": 2, "size": 64 * MIB}],
            "link": {"speed": 16.0, "width": 16, "max_speed": 32.0, "max_width": 16},
            "reset_methods": ["flr", "bus"], "in_use_because": [], "state": "free", **changes}


def arguments(gpus: Sequence[dict[str, Any]] = (gpu(),), devices: Sequence[dict[str, Any]] = (device(),),
              checks: Sequence[dict[str, Any]] = (), seconds: float | None = 2.5, domain: dict[str, Any] | None = None,
              **changes: Any) -> dict[str, Any]:
    """What the task of site.yml gives host_report. ``seconds`` are those of gpu_verify."""
    stages = {"gpu_verify": {"devices": list(devices), "changed": True, "actions": ["open it"], "elapsed": seconds}}
    if domain:
        stages["gpu_domain"] = {"changed": True, "results": [{"changed": True, **domain}]}
    return {"host": {"host": {**FACTS, "checks": list(checks)}}, "gpus": {"gpus": list(gpus)}, "stages": stages,
            **changes}


def report(host: str = "grace1", at: datetime = NOW, check_mode: bool = False, **changes: Any) -> dict[str, Any]:
    """The record as json.loads returns it."""
    made = build_report(host, arguments(**changes), check_mode, at.isoformat(timespec="seconds"))
    loaded: dict[str, Any] = json.loads(json.dumps(made))
    return loaded


def record(host: str = "grace1", at: datetime = NOW, **changes: Any) -> Record:
    return parse_record(report(host, at, **changes))


def fleet(*records: Record, problems: Sequence[Problem] = (), expected: Iterable[str] = (),
          now: datetime = NOW + timedelta(hours=1)) -> Fleet:
    return merge(records, problems, now, expected)
