# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Whether a running host is what it should be: a wrong memory base, for one, would silently hit its RAM."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from . import lifecycle, state
from .cache import Cache
from .errors import LabError
from .products import Gpu
from .spec import Spec

# One login for all: each costs half a second of emulated cryptography.
COLLECT = r"""
section() { echo "@@ $1"; }
section iomem; cat /proc/iomem
section kvm; test -c /dev/kvm && echo present
section libvirt; virsh -q domcapabilities --virttype kvm 2>&1 | grep -E '<domain>|error' || true
section initiators; cat /sys/devices/system/node/has_generic_initiator
section distance; cat /sys/devices/system/node/node0/distance
section properties; grep -l nvidia,gpu-mem-base-pa /sys/firmware/acpi/tables/* || true
section kernel; uname -r
section functions
for device in /sys/bus/pci/devices/*; do
    group=none
    test -e "$device/iommu_group" && group=$(basename "$(readlink "$device/iommu_group")")
    echo "${device##*/} $(cat "$device/vendor"):$(cat "$device/device") $group"
done
"""


@dataclass(frozen=True)
class Result:
    """One thing that was checked."""

    name: str
    passed: bool
    detail: str


def sections(text: str) -> dict[str, list[str]]:
    """Split the output of the collecting script at its "@@ name" lines."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if line.startswith("@@ "):
            current = found.setdefault(line[3:], [])
        else:
            current.append(line)
    return found


def overlaps(iomem: list[str], first: int, last: int) -> list[str]:
    """Return the /proc/iomem lines at the top level that touch the range; addresses are inclusive."""
    hits = []
    for line in iomem:
        if line.startswith(" ") or " : " not in line:
            continue
        start, _, end = line.split(" : ")[0].partition("-")
        if int(start, 16) <= last and int(end, 16) >= first:
            hits.append(line.strip())
    return hits


def _memory(gpu: Gpu, iomem: list[str]) -> Result:
    last = gpu.memory_base + gpu.product.memory - 1
    hits = overlaps(iomem, gpu.memory_base, last)
    described = f"{gpu.memory_base:#x}-{last:#x} ({gpu.product.memory >> 20} MiB)"
    return Result(f"gpu{gpu.index} memory", not hits,
                  f"{described} is in {'; '.join(hits)}" if hits else f"{described} is no one's in /proc/iomem")


def _function(gpu: Gpu, spec: Spec, functions: list[str]) -> list[Result]:
    rows = {line.split()[0]: line.split()[1:] for line in functions}
    if gpu.address not in rows:
        return [Result(f"gpu{gpu.index} function", False, f"nothing at {gpu.address}")]
    ids, group = rows[gpu.address]
    wanted = "0x{}:0x{}".format(*gpu.pci_id.split(":"))
    # Linux 6.12 and older on arm64 make the group at the first probe of a driver, 7.3 at boot.
    may_lack_group = spec.faults.no_iommu or (spec.arch.name == "arm64" and spec.kernel.name in ("6.1", "6.12"))
    group_ok = group == "none" if spec.faults.no_iommu else group != "none" or may_lack_group
    return [Result(f"gpu{gpu.index} function", ids == wanted, f"{gpu.address} {ids}"),
            Result(f"gpu{gpu.index} IOMMU group", group_ok, group)]


def judge(spec: Spec, found: Mapping[str, list[str]]) -> list[Result]:
    """Compare what was collected with the request."""
    release = " ".join(found["kernel"])
    nodes = sum(len(gpu.nodes) for gpu in spec.gpus)
    expected_nodes = "1" if nodes == 1 else f"1-{nodes}"
    initiators = " ".join(found["initiators"])
    properties = [path.rsplit("/", 1)[-1] for path in found["properties"]]
    expected_properties = not all(gpu.faults.no_properties for gpu in spec.gpus)
    capabilities = " ".join(line.strip() for line in found["libvirt"])
    results = [
        Result("kernel", bool(re.fullmatch(spec.kernel.release, release)), release),
        Result("generic initiators", initiators == expected_nodes, f"nodes {initiators}"),
        Result("distances", len(found["distance"][0].split()) == nodes + 1, found["distance"][0]),
        Result("ACPI properties", bool(properties) == expected_properties, ", ".join(properties) or "none"),
        Result("/dev/kvm", ("present" in found["kvm"]) == spec.kernel.kvm, "present" if found["kvm"] else "absent"),
        Result("libvirt offers kvm", ("<domain>kvm</domain>" in capabilities) == spec.kernel.kvm, capabilities),
    ]
    for gpu in spec.gpus:
        results += [_memory(gpu, found["iomem"]), *_function(gpu, spec, found["functions"])]
    return results


def check(cache: Cache, name: str) -> list[Result]:
    """Check a running lab. Raises LabError when the host does not answer as it should."""
    lab = state.require_running(cache, name)
    found = sections(lifecycle.login(cache, lab).run(COLLECT))
    try:
        return judge(lab.spec, found)
    except (KeyError, IndexError, ValueError) as error:
        raise LabError(f"The host answered something unexpected ({error!r}): {found}") from error
