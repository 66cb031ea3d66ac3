# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The BAR map of a GPU: where memory and where a hole is, and where both are drawn. Pure.

All BARs of a GPU have one scale, that of the largest, because their sizes beside each other are what the map shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .record import Area, Region

HOLE = "hole"
# Of GPU memory, whose sparse areas say what exists. Those of a physical BAR leave out an MSI-X table, which is no hole.
_MEMORY = ("usemem", "resmem")


@dataclass(frozen=True)
class Segment:
    """A part of a BAR: ``kind`` is the region's role or "hole"; ``offset`` and ``size`` in bytes, ``x`` and ``width``
    in units of the drawing."""

    kind: str
    offset: int
    size: int
    x: int
    width: int


@dataclass(frozen=True)
class Row:
    """One BAR with its segments, which cover its reported size without a gap. ``enlarged``: it is too small for the
    scale and drawn larger than it is."""

    region: Region
    segments: tuple[Segment, ...]
    enlarged: bool


@dataclass(frozen=True)
class BarMap:
    """``scale`` is the number of bytes that have the ``width`` of the drawing."""

    rows: tuple[Row, ...]
    scale: int
    width: int


def bar_map(regions: Iterable[Region], width: int = 1000, least: int = 4) -> BarMap:
    """The map of the BARs that exist. No segment is narrower than ``least`` units, so that none is hidden; only a BAR
    of more parts than the drawing has room for has narrower ones."""
    bars = [region for region in regions if region.name.startswith("BAR") and region.reported > 0]
    scale = max((region.reported for region in bars), default=0)
    return BarMap(tuple(_row(region, scale, width, least) for region in bars), scale, width)


def parts(region: Region) -> list[tuple[str, Area]]:
    """Memory and holes of a region in the order of their offsets; without a gap, from 0 to its reported size."""
    areas = region.sparse if region.role in _MEMORY and region.sparse else (Area(0, region.actual),)
    found: list[tuple[str, Area]] = []
    position = 0
    for area in sorted(areas, key=lambda area: area.offset):
        start, end = max(area.offset, position), min(area.offset + area.size, region.reported)
        if end <= start:
            continue
        if start > position:
            found.append((HOLE, Area(position, start - position)))
        found.append((region.role, Area(start, end - start)))
        position = end
    if position < region.reported:
        found.append((HOLE, Area(position, region.reported - position)))
    return found


def _row(region: Region, scale: int, width: int, least: int) -> Row:
    found = parts(region)
    exact = [area.offset * width // scale for _kind, area in found] + [region.reported * width // scale]
    edges = _spread(exact, least, width)
    segments = tuple(Segment(kind, area.offset, area.size, left, right - left)
                     for (kind, area), left, right in zip(found, edges, edges[1:]))
    return Row(region, segments, edges[-1] > exact[-1])


def _spread(edges: Sequence[int], least: int, width: int) -> list[int]:
    """Edges moved apart to at least ``least``, first to the right, then back from the end of the drawing."""
    least = min(least, width // (len(edges) - 1))
    moved = [edges[0]]
    for edge in edges[1:]:
        moved.append(max(edge, moved[-1] + least))
    limit = width
    for number in range(len(moved) - 1, 0, -1):
        moved[number] = min(moved[number], limit)
        limit = moved[number] - least
    return moved
