# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure: the regions that a device will have, for runs that must not open it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from .._gpu.model import Bar
from .._gpu.products import Product
from . import layout as layouts
from .uapi import BAR_REGIONS, REGION_NAMES


@dataclass(frozen=True)
class Prediction:
    """``memory["source"]`` says what the sizes come from: expected_memory, product, or none."""

    layout: Optional[str]
    memory: dict[str, Any]
    regions: tuple[dict[str, Any], ...]


def predict(bars: tuple[Bar, ...], product: Optional[Product], expected_memory: Optional[int], layout: str,
            mig_bug: Optional[bool]) -> Prediction:
    """The regions as the description or the product table makes them; physical BARs alone where neither knows.

    A device whose config space could not be read (``mig_bug`` None) is taken for one with the bug exactly where its
    product is a Grace Hopper.
    """
    if expected_memory is not None:
        size, source = expected_memory, "expected_memory"
    elif product is not None:
        size, source = product.memory, "product"
    else:
        return Prediction(None, {"expected": None, "seen": None, "source": "none"}, _physical(bars, set()))
    if mig_bug is None:
        mig_bug = product is None or product.family == "grace-hopper"
    chosen = "mainline" if layout == "auto" else layout
    emulated = layouts.expected_regions(chosen, size, mig_bug)
    regions = [_region(item.index, item.role, item.reported, item.actual) for item in emulated]
    regions += _physical(bars, {item.index for item in emulated})
    return Prediction(chosen, {"expected": size, "seen": None, "source": source},
                      tuple(sorted(regions, key=lambda region: int(region["index"]))))


def _physical(bars: tuple[Bar, ...], emulated: set[int]) -> tuple[dict[str, Any], ...]:
    return tuple(_region(bar.index, "physical", bar.size, bar.size) for bar in bars
                 if bar.index in BAR_REGIONS and bar.index not in emulated)


def _region(index: int, role: str, reported: int, actual: int) -> dict[str, Any]:
    return {"index": index, "name": REGION_NAMES[index], "role": role, "reported": reported, "actual": actual,
            "flags": [], "sparse": [], "offset": None, "bar_register": None, "verdict": "skipped", "reasons": [],
            "evidence": []}
