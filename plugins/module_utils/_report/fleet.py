# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The records of many hosts as one fleet. Pure, but for read_records, which reads the directories."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Optional, TypeVar

from .._core.errors import PassthroughError
from .fields import AlienError, clean
from .outliers import Outlier, find_outliers
from .parse import parse_record
from .record import OUTCOMES, STAGES, Check, Record

_T = TypeVar("_T")

# A hundred times that of a host with four GPUs.
MAX_FILE = 8 << 20
OLD_AFTER_HOURS = 24


@dataclass(frozen=True)
class Problem:
    """A file that is not in the report, or a host that has no file, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class Finding:
    """A check that is not ok on some hosts. ``why`` has the different reasons, the most frequent first."""

    id: str
    status: str
    why: tuple[str, ...]
    remedy: str
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class Timing:
    """What a stage took on the hosts that told it, in seconds."""

    stage: str
    hosts: int
    median: float
    longest: float
    slowest: str


@dataclass(frozen=True)
class ProductGroup:
    """The GPUs of one product. ``drivers`` and ``memory`` are pairs of a value and the number of its GPUs."""

    product: str
    gpus: int
    hosts: int
    drivers: tuple[tuple[str, int], ...]
    memory: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Fleet:
    """All records, sorted by host. ``made_at`` is now, in UTC; a record that is ``old_after`` older than the newest one
    is old: its host was not reached in the last run."""

    records: tuple[Record, ...]
    problems: tuple[Problem, ...]
    outliers: tuple[Outlier, ...]
    made_at: datetime
    old_after: timedelta

    @property
    def newest(self) -> datetime:
        """The time of the newest record. One of the future, by a clock that is wrong, makes no other record old."""
        return max((record.made_at for record in self.records if record.made_at <= self.made_at), default=self.made_at)

    @property
    def old(self) -> tuple[Record, ...]:
        newest = self.newest
        return tuple(record for record in self.records if newest - record.made_at > self.old_after)

    @property
    def outcomes(self) -> tuple[tuple[str, int], ...]:
        """Those that occur, with the number of their hosts, the worst first."""
        counts = [(outcome, sum(record.outcome == outcome for record in self.records)) for outcome in OUTCOMES]
        return tuple((outcome, count) for outcome, count in counts if count)

    @property
    def stopped(self) -> tuple[Record, ...]:
        """Hosts that failed, the worst outcome first."""
        return tuple(sorted((record for record in self.records if record.failure),
                            key=lambda record: OUTCOMES.index(record.outcome)))


def merge(records: Iterable[Record], problems: Sequence[Problem], made_at: datetime, expected: Iterable[str] = (),
          old_after_hours: int = OLD_AFTER_HOURS) -> Fleet:
    """One record a host, the newest. ``expected`` are hosts that must have one: those without are problems."""
    newest: dict[str, Record] = {}
    for record in records:
        known = newest.get(record.host)
        if known is None or record.made_at > known.made_at:
            newest[record.host] = record
    missing = [Problem(host, "There is no record of this host yet.")
               for host in sorted({clean(host) for host in expected} - newest.keys(), key=_natural)]
    kept = tuple(newest[host] for host in sorted(newest, key=_natural))
    return Fleet(kept, (*problems, *missing), find_outliers(kept), made_at, timedelta(hours=old_after_hours))


def read_records(directories: Sequence[Path]) -> tuple[list[Record], list[Problem]]:
    """All ``*.json`` files, and those of them that are no records. Raises PassthroughError where a directory cannot be
    read."""
    records, problems = [], []
    for directory in directories:
        try:
            files = sorted(path for path in directory.iterdir() if path.suffix == ".json")
        except OSError as error:
            raise PassthroughError(f"The directory {directory} with the records of the hosts cannot be read: "
                                   f"{error.strerror}.") from error
        for path in files:
            try:
                records.append(parse_record(_load(path)))
            except AlienError as error:
                problems.append(Problem(clean(path.name), f"The file is not in this report: {error.message}"))
    return records, problems


def _load(path: Path) -> object:
    try:
        if not path.is_file():
            raise AlienError("it is not a regular file.")
        if path.stat().st_size > MAX_FILE:
            raise AlienError(f"it is larger than {MAX_FILE >> 20} MiB.")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise AlienError(f"it cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise AlienError(f"it is not JSON ({error}).") from error


def _natural(host: str) -> tuple[list[tuple[int, int, str]], str]:
    """grace2 comes before grace10."""
    parts = re.findall("([0-9]+)|([^0-9]+)", host)
    return [(0, int(digits), "") if digits else (1, 0, text) for digits, text in parts], host


def findings(fleet: Fleet) -> tuple[Finding, ...]:
    """Failed checks first, then accepted ones, then warnings, each by the number of its hosts."""
    found: dict[tuple[str, str, str], list[tuple[str, Check]]] = {}
    for record in fleet.records:
        for check in record.findings:
            found.setdefault((check.id, check.verdict, check.remedy), []).append((record.host, check))
    order = ("fail", "accepted", "warn")
    grouped = [Finding(name, status, _by_count(check.why for _host, check in items), remedy,
                       tuple(host for host, _check in items))
               for (name, status, remedy), items in found.items()]
    return tuple(sorted(grouped, key=lambda item: (order.index(item.status), -len(item.hosts), item.id)))


def _by_count(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(text for text, _count in _counted(texts))


def timings(fleet: Fleet) -> tuple[Timing, ...]:
    """One for each stage that some host told."""
    found = []
    for number, name in enumerate(STAGES):
        told = [(record.stages[number].seconds, record.host) for record in fleet.records]
        known = [(seconds, host) for seconds, host in told if seconds is not None]
        if known:
            longest, slowest = max(known)
            found.append(Timing(name, len(known), float(median(seconds for seconds, _host in known)), longest, slowest))
    return tuple(found)


def products(fleet: Fleet) -> tuple[ProductGroup, ...]:
    """By the number of GPUs."""
    groups: dict[str, list[tuple[str, str, Optional[int]]]] = {}
    for record in fleet.records:
        for gpu in record.gpus:
            driver = f"{gpu.driver} {gpu.version}".strip() or "no driver"
            memory = gpu.verified.memory_seen if gpu.verified else None
            groups.setdefault(gpu.product, []).append((record.host, driver, memory))
    made = [ProductGroup(product, len(items), len({host for host, _driver, _memory in items}),
                         _counted(driver for _host, driver, _memory in items),
                         _counted(memory for _host, _driver, memory in items if memory is not None))
            for product, items in groups.items()]
    return tuple(sorted(made, key=lambda group: (-group.gpus, group.product)))


def _counted(values: Iterable[_T]) -> tuple[tuple[_T, int], ...]:
    """Each value with how often it is there, the most frequent first."""
    return tuple(Counter(values).most_common())
