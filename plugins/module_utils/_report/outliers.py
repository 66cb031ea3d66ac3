# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GPUs that differ from the others of the same product. Pure.

A value is usual when at least three GPUs of a product tell theirs and two of three agree; without that nobody knows
which of them is the odd one. The link's present speed is left out: that of an idle GPU may be lower.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Callable, Optional

from .record import Gpu, Record
from .text import human_size

_LEAST_GPUS = 3
_SHARE = (2, 3)


@dataclass(frozen=True)
class Outlier:
    """One property of one GPU, ``what``. ``share`` of ``total`` GPUs of the product have the usual value."""

    host: str
    address: str
    product: str
    what: str
    value: str
    usual: str
    share: int
    total: int

    @property
    def text(self) -> str:
        return (f"{self.what} is {self.value}; {self.share} of {self.total} {self.product} in this fleet have "
                f"{self.usual}.")


def _memory(gpu: Gpu) -> Optional[str]:
    """Exact bytes where the rounded size could hide a difference."""
    seen = gpu.verified.memory_seen if gpu.verified else None
    return None if seen is None else f"{human_size(seen)} ({seen} bytes)"


def _bars(gpu: Gpu) -> Optional[str]:
    return " + ".join(human_size(size) for size in gpu.bars) or None


# Each tells the value of a GPU as text, None where it is not known.
PROPERTIES: tuple[tuple[str, Callable[[Gpu], Optional[str]]], ...] = (
    ("GPU memory", _memory),
    ("the size of the BARs", _bars),
    ("the width of the PCIe link", lambda gpu: f"x{gpu.link.width}" if gpu.link else None),
    ("the highest speed of the PCIe link", lambda gpu: f"{gpu.link.max_speed:g} GT/s" if gpu.link else None),
    ("the driver", lambda gpu: gpu.driver or None),
    ("the version of the driver", lambda gpu: f"{gpu.driver} {gpu.version}" if gpu.version else None),
)


def find_outliers(records: Iterable[Record]) -> tuple[Outlier, ...]:
    """All of them, in the order of hosts, addresses and PROPERTIES."""
    gpus = [(record.host, gpu) for record in records for gpu in record.gpus]
    usual = {name: _usual(tell, gpus) for name, tell in PROPERTIES}
    found = []
    for host, gpu in gpus:
        for name, tell in PROPERTIES:
            value, common = tell(gpu), usual[name].get(gpu.product)
            if value is not None and common is not None and value != common[0]:
                found.append(Outlier(host, gpu.address, gpu.product, name, value, *common))
    return tuple(found)


def _usual(tell: Callable[[Gpu], Optional[str]], gpus: Iterable[tuple[str, Gpu]]) -> dict[str, tuple[str, int, int]]:
    """By product: the usual value, how many have it, and how many tell theirs."""
    counts: dict[str, Counter[str]] = {}
    for _host, gpu in gpus:
        value = tell(gpu)
        if value is not None:
            counts.setdefault(gpu.product, Counter())[value] += 1
    found = {}
    for product, counter in counts.items():
        total = sum(counter.values())
        value, share = counter.most_common(1)[0]
        if total >= _LEAST_GPUS and share * _SHARE[1] >= total * _SHARE[0]:
            found[product] = (value, share, total)
    return found
