# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the fleet's page shows: rows for its table, and compact data from which the browser draws the rest. Pure.

A thousand hosts are a thousand times nearly the same texts, regions and NUMA nodes. Each different value stands once in
the data, and hosts have its number: that is what keeps the page small.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Optional

from .barmap import bar_map
from .fleet import Fleet, timings
from .record import Gpu, Node, Record, Region
from .text import human_size

# The worst first, as the outcomes are.
VERDICTS = ("fail", "not verified", "skipped", "unchecked", "in-use", "ok")


class Table:
    """Different values in the order in which they came; equal ones share a number."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[str, int] = {}

    def number(self, value: Any) -> int:
        key = json.dumps(value, sort_keys=True)
        found = self._numbers.setdefault(key, len(self.values))
        if found == len(self.values):
            self.values.append(value)
        return found


@dataclass(frozen=True)
class HostRow:
    """A row of the table of hosts. ``memory`` in bytes, what all GPUs showed; ``hours`` is the record's age."""

    host: str
    outcome: str
    gpus: str
    verdict: str
    driver: str
    memory: int
    findings: int
    outliers: int
    seconds: Optional[float]
    hours: float
    old: bool
    kernel: str

    @property
    def memory_text(self) -> str:
        return human_size(self.memory) if self.memory else ""

    @property
    def age_text(self) -> str:
        if self.hours < 1:
            return f"{round(self.hours * 60)} min"
        return f"{self.hours:.0f} h" if self.hours < 48 else f"{self.hours / 24:.0f} d"


def host_rows(fleet: Fleet) -> tuple[HostRow, ...]:
    """One for each host, in the fleet's order."""
    odd: dict[str, int] = {}
    for outlier in fleet.outliers:
        odd[outlier.host] = odd.get(outlier.host, 0) + 1
    old = {record.host for record in fleet.old}
    return tuple(_row(record, fleet, odd.get(record.host, 0), record.host in old) for record in fleet.records)


def _row(record: Record, fleet: Fleet, outliers: int, old: bool) -> HostRow:
    seen = [gpu.verified.memory_seen or 0 for gpu in record.gpus if gpu.verified]
    return HostRow(
        host=record.host,
        outcome=record.outcome,
        gpus=counted(gpu.product for gpu in record.gpus),
        verdict=worst(record.gpus),
        driver=counted(gpu.driver or "none" for gpu in record.gpus),
        memory=sum(seen),
        findings=len(record.findings),
        outliers=outliers,
        seconds=record.seconds,
        hours=max(0.0, (fleet.made_at - record.made_at).total_seconds() / 3600),
        old=old,
        kernel=record.kernel,
    )


def worst(gpus: Iterable[Gpu]) -> str:
    """The verdict that needs a look first; empty without a GPU."""
    found = {gpu.verdict for gpu in gpus}
    return next((verdict for verdict in VERDICTS if verdict in found), next(iter(sorted(found)), ""))


def counted(names: Iterable[str]) -> str:
    """``4 x GB200 186GB HBM3e``; different ones are separated by commas."""
    return ", ".join(name if count == 1 else f"{count} x {name}" for name, count in Counter(names).items())


def page_data(fleet: Fleet) -> dict[str, Any]:
    """The data of the details, for JSON. ``hosts`` are in the order of host_rows."""
    texts, checks, maps, topologies = Table(), Table(), Table(), Table()
    odd: dict[tuple[str, str], list[str]] = {}
    for outlier in fleet.outliers:
        odd.setdefault((outlier.host, outlier.address), []).append(outlier.text)

    def gpu_data(host: str, gpu: Gpu) -> dict[str, Any]:
        return _without_nothing({
            "a": gpu.address, "p": texts.number(gpu.product), "v": texts.number(gpu.verdict),
            "f": [[texts.number(label), texts.number(value)] for label, value in gpu_facts(gpu)],
            "r": [texts.number(reason) for reason in (gpu.verified.reasons if gpu.verified else ())],
            "m": maps.number(_map(gpu.verified.regions)) if gpu.verified and gpu.verified.regions else None,
            "n": gpu.node, "i": list(gpu.initiators), "o": odd.get((host, gpu.address)) or None})

    def host_data(record: Record) -> dict[str, Any]:
        return _without_nothing({
            "t": record.made_at.strftime("%Y-%m-%d %H:%M UTC"), "f": record.failure, "a": record.after_failure,
            "b": record.reboot_required,
            "k": [[texts.number(label), texts.number(value)] for label, value in record.facts],
            "c": [checks.number([check.id, "accepted" if check.accepted and check.status == "fail" else check.status,
                                 check.why, check.remedy]) for check in record.checks],
            "g": [gpu_data(record.host, gpu) for gpu in record.gpus],
            "n": topologies.number([_node(node) for node in record.nodes]) if record.nodes else None,
            "s": [[stage.name, 1 if stage.changed else 0, stage.seconds,
                   [texts.number(action) for action in stage.actions]] for stage in record.stages if stage.ran],
            "d": [[domain.name, texts.number(domain.state), domain.restart_required, list(domain.warnings)]
                  for domain in record.domains]})

    hosts = [host_data(record) for record in fleet.records]
    longest = max((timing.longest for timing in timings(fleet)), default=0)
    return {"texts": texts.values, "checks": checks.values, "maps": maps.values, "nodes": topologies.values,
            "hosts": hosts, "longest": longest}


def _without_nothing(values: dict[str, Any]) -> dict[str, Any]:
    """The names that say something: no None, no empty text or list, no false. The number 0 says something."""
    return {name: value for name, value in values.items() if value or (value == 0 and value is not False)}


def gpu_facts(gpu: Gpu) -> tuple[tuple[str, str], ...]:
    """What is known of a GPU beside its regions, as lines for people. What is not known has no line."""
    verified = gpu.verified
    group = "" if gpu.group is None else str(gpu.group)
    if gpu.members:
        group = f"{group}, with {'; '.join(gpu.members)}"
    lines = [
        ("Driver", f"{gpu.driver} {gpu.version}".strip() or "none"),
        ("Driver override", gpu.override),
        ("Variant driver", gpu.variant),
        ("IOMMU group", group),
        ("NUMA node", _node_text(gpu)),
        ("PCIe link", gpu.link.text if gpu.link else ""),
        ("Reset", ", ".join(gpu.reset_methods)),
        ("In use", "; ".join(gpu.used_by)),
    ]
    if verified:
        seen, expected = verified.memory_seen, verified.memory_expected
        memory = "" if seen is None else f"{human_size(seen)} ({seen} bytes)"
        if seen is not None and expected is not None and seen != expected:
            memory += f", expected are {human_size(expected)} ({expected} bytes)"
        way = ", ".join(part for part in (verified.layout, verified.implementation,
                                          f"by {verified.api}" if verified.api else "",
                                          "from the record of this boot" if verified.from_record else "") if part)
        lines += [("GPU memory", memory), ("Layout", way), ("Verified at", verified.verified_at)]
    return tuple((label, value) for label, value in lines if value)


def _node_text(gpu: Gpu) -> str:
    node = "" if gpu.node < 0 else str(gpu.node)
    if not gpu.initiators:
        return node
    first, last = min(gpu.initiators), max(gpu.initiators)
    nodes = str(first) if first == last else f"{first} to {last}"
    return f"{node or 'none'}, generic initiator of {nodes}"


def _map(regions: Iterable[Region]) -> list[list[Any]]:
    """The regions that exist. The last item are the segments of a BAR, and whether it is drawn larger than it is."""
    rows = {row.region.index: row for row in bar_map(regions).rows}
    found = []
    for region in regions:
        if not region.reported:
            continue
        row = rows.get(region.index)
        drawn = [[[part.kind, part.x, part.width, human_size(part.size), hex(part.offset)] for part in row.segments],
                 1 if row.enlarged else 0] if row else None
        found.append([region.index, region.name, region.role, human_size(region.reported), human_size(region.actual),
                      " ".join(region.flags), region.verdict, list(region.reasons), drawn])
    return found


def _node(node: Node) -> list[Any]:
    return [node.id, node.cpus, human_size(node.memory) if node.memory else "", 1 if node.initiator else 0,
            list(node.distances)]
