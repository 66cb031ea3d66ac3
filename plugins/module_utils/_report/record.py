# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Value objects: what the record of one host says. Sizes are bytes; None means that the host did not tell."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Optional

# From what needs a look first to what needs none.
OUTCOMES = ("failed", "quarantined", "incomplete", "unchecked", "predicted", "verified")
STAGES = ("gpu_preflight", "gpu_host", "gpu_kmod", "gpu_bind", "gpu_verify", "gpu_domain")


@dataclass(frozen=True)
class Check:
    """One verdict of host_info; ``accepted`` where the user takes the risk of a failed one."""

    id: str
    status: str
    why: str
    remedy: str
    accepted: bool

    @property
    def verdict(self) -> str:
        """The status; "accepted" for a failed check whose risk the user takes."""
        return "accepted" if self.accepted and self.status == "fail" else self.status


@dataclass(frozen=True)
class Area:
    """A part of a region, from its start."""

    offset: int
    size: int


@dataclass(frozen=True)
class Region:
    """What VFIO shows of one region: ``reported`` is its size, ``actual`` what exists of it."""

    index: int
    name: str
    role: str
    reported: int
    actual: int
    flags: tuple[str, ...]
    sparse: tuple[Area, ...]
    verdict: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Link:
    """A PCIe link: GT/s for each lane, lanes, and what both could be."""

    speed: float
    width: int
    max_speed: float
    max_width: int

    @property
    def text(self) -> str:
        now = f"{self.speed:g} GT/s x{self.width}"
        if (self.speed, self.width) == (self.max_speed, self.max_width):
            return now
        return f"{now} of {self.max_speed:g} GT/s x{self.max_width}"


@dataclass(frozen=True)
class Verified:
    """What region_verify said of a GPU. ``layout`` and ``verified_at`` are empty where it has none."""

    verdict: str
    layout: str
    api: str
    implementation: str
    reasons: tuple[str, ...]
    verified_at: str
    from_record: bool
    memory_seen: Optional[int]
    memory_expected: Optional[int]
    regions: tuple[Region, ...]


@dataclass(frozen=True)
class Gpu:
    """A GPU as gpu_info and region_verify describe it. ``version`` is the srcversion of its driver; ``members`` are the
    other functions of its group, each as text."""

    address: str
    product: str
    driver: str
    version: str
    override: str
    variant: str
    group: Optional[int]
    members: tuple[str, ...]
    node: int
    initiators: tuple[int, ...]
    link: Optional[Link]
    bars: tuple[int, ...]
    state: str
    used_by: tuple[str, ...]
    reset_methods: tuple[str, ...]
    verified: Optional[Verified]

    @property
    def verdict(self) -> str:
        return self.verified.verdict if self.verified else "not verified"


@dataclass(frozen=True)
class Node:
    """A NUMA node; ``distances`` to node 0, 1, ..."""

    id: int
    cpus: str
    memory: int
    distances: tuple[int, ...]
    initiator: bool


@dataclass(frozen=True)
class Stage:
    """What one role did. ``seconds`` is None where its modules did not tell."""

    name: str
    ran: bool
    changed: bool
    actions: tuple[str, ...]
    seconds: Optional[float]


@dataclass(frozen=True)
class Domain:
    """A libvirt domain and what was said about it."""

    name: str
    state: str
    warnings: tuple[str, ...]
    restart_required: bool


@dataclass(frozen=True)
class Record:
    """The record of one host. ``facts`` are pairs of a label and a text, for people."""

    host: str
    made_at: datetime
    outcome: str
    failure: str
    after_failure: str
    reboot_required: bool
    kernel: str
    facts: tuple[tuple[str, str], ...]
    checks: tuple[Check, ...]
    gpus: tuple[Gpu, ...]
    nodes: tuple[Node, ...]
    stages: tuple[Stage, ...]
    domains: tuple[Domain, ...]

    @property
    def findings(self) -> tuple[Check, ...]:
        """The checks that are not ok."""
        return tuple(check for check in self.checks if check.status != "ok")

    @property
    def seconds(self) -> Optional[float]:
        """All stages together."""
        told = [stage.seconds for stage in self.stages if stage.seconds is not None]
        return round(sum(told), 3) if told else None
