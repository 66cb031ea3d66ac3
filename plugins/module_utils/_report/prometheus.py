# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet as metrics in Prometheus' text format, for the textfile collector of node_exporter. Pure.

All families are gauges, because each says how it is now and none counts up. Samples have no timestamps, because the
textfile collector refuses a file with them; the record's own time is a metric.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Callable

from .fleet import Fleet
from .record import Gpu, Record, Region, Verified

# Labels by name, in the order in which they are written, and the value.
Sample = tuple[dict[str, str], float]

_PREFIX = "nvgrace_passthrough"
_STATUSES = ("ok", "warn", "accepted", "fail")


@dataclass(frozen=True)
class Family:
    """Samples of one name. ``name`` has the unit at its end and no prefix; ``help`` is a sentence without its dot."""

    name: str
    help: str
    samples: Callable[[Fleet], Iterable[Sample]]


def prometheus(fleet: Fleet) -> str:
    """All FAMILIES that have samples; theirs are in the order of hosts, addresses and regions."""
    lines: list[str] = []
    for family in FAMILIES:
        samples = _samples(family, fleet)
        if samples:
            name = f"{_PREFIX}_{family.name}"
            lines += [f"# HELP {name} {family.help}.", f"# TYPE {name} gauge",
                      *(f"{name}{labels} {_number(value)}" for labels, value in samples.items())]
    return "\n".join(lines) + "\n"


def _samples(family: Family, fleet: Fleet) -> dict[str, float]:
    """Values by labels. The collector refuses the whole file for two samples with the same labels, so the greater value
    stays: a record may name a region or a domain twice."""
    found: dict[str, float] = {}
    for labels, value in family.samples(fleet):
        text = ",".join(f'{name}="{_escaped(content)}"' for name, content in labels.items())
        key = f"{{{text}}}" if text else ""
        found[key] = max(value, found.get(key, value))
    return found


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    """Whole numbers without a point, so that bytes and times stay exact."""
    return str(int(value)) if value == int(value) else repr(float(value))


def _outcomes(fleet: Fleet) -> Iterable[Sample]:
    return [({"host": record.host, "outcome": record.outcome}, 1) for record in fleet.records]


def _record_times(fleet: Fleet) -> Iterable[Sample]:
    return [({"host": record.host}, record.made_at.timestamp()) for record in fleet.records]


def _reboots(fleet: Fleet) -> Iterable[Sample]:
    return [({"host": record.host}, int(record.reboot_required)) for record in fleet.records]


def _checks(fleet: Fleet) -> Iterable[Sample]:
    for record in fleet.records:
        counts = Counter(check.verdict for check in record.checks)
        yield from (({"host": record.host, "status": status}, counts[status]) for status in _STATUSES)


def _gpus(fleet: Fleet) -> Iterable[tuple[Record, Gpu]]:
    return ((record, gpu) for record in fleet.records for gpu in record.gpus)


def _verdicts(fleet: Fleet) -> Iterable[Sample]:
    for record, gpu in _gpus(fleet):
        layout = gpu.verified.layout if gpu.verified else ""
        yield {"host": record.host, "address": gpu.address, "product": gpu.product, "driver": gpu.driver,
               "layout": layout, "verdict": gpu.verdict}, 1


def _verified(fleet: Fleet) -> Iterable[tuple[dict[str, str], Verified]]:
    return (({"host": record.host, "address": gpu.address}, gpu.verified) for record, gpu in _gpus(fleet)
            if gpu.verified)


def _memory_seen(fleet: Fleet) -> Iterable[Sample]:
    return [(labels, seen.memory_seen) for labels, seen in _verified(fleet) if seen.memory_seen is not None]


def _memory_expected(fleet: Fleet) -> Iterable[Sample]:
    return [(labels, seen.memory_expected) for labels, seen in _verified(fleet) if seen.memory_expected is not None]


def _regions(fleet: Fleet) -> Iterable[tuple[dict[str, str], Region]]:
    """Those that exist. ``role`` has no value where nobody said it."""
    return (({**labels, "region": region.name or str(region.index), "role": region.role}, region)
            for labels, seen in _verified(fleet) for region in seen.regions if region.reported)


def _reported(fleet: Fleet) -> Iterable[Sample]:
    return [(labels, region.reported) for labels, region in _regions(fleet)]


def _actual(fleet: Fleet) -> Iterable[Sample]:
    return [(labels, region.actual) for labels, region in _regions(fleet)]


def _stages(fleet: Fleet) -> Iterable[Sample]:
    return [({"host": record.host, "stage": stage.name}, stage.seconds)
            for record in fleet.records for stage in record.stages if stage.seconds is not None]


def _outliers(fleet: Fleet) -> Iterable[Sample]:
    counts = Counter(outlier.host for outlier in fleet.outliers)
    return [({"host": record.host}, counts[record.host]) for record in fleet.records]


def _domains(fleet: Fleet) -> Iterable[Sample]:
    return [({"host": record.host, "domain": domain.name}, int(domain.restart_required))
            for record in fleet.records for domain in record.domains]


FAMILIES = (
    Family("report_timestamp_seconds", "When this file was made, Unix time",
           lambda fleet: [({}, fleet.made_at.timestamp())]),
    Family("report_problems", "Files that are no records, and hosts without a record",
           lambda fleet: [({}, len(fleet.problems))]),
    Family("host_outcome_info", "What became of the host in its last run", _outcomes),
    Family("record_timestamp_seconds", "When the record of the host was made, Unix time", _record_times),
    Family("host_reboot_required", "Whether a reboot of the host is due", _reboots),
    Family("host_checks", "Checks of the host by status; accepted ones failed and are not counted as such", _checks),
    Family("gpu_info", "What drives the GPU, and the verdict on its regions", _verdicts),
    Family("gpu_memory_seen_bytes", "GPU memory that VFIO shows", _memory_seen),
    Family("gpu_memory_expected_bytes", "GPU memory that the product or the operator says", _memory_expected),
    Family("region_reported_bytes", "Size of the VFIO region", _reported),
    Family("region_actual_bytes", "What exists of the VFIO region", _actual),
    Family("stage_seconds", "What the role's modules took on the host in its last run", _stages),
    Family("gpu_outliers", "Properties of the host's GPUs that differ from other GPUs of the product", _outliers),
    Family("domain_restart_required", "Whether the domain runs with an older definition than it has", _domains),
)
