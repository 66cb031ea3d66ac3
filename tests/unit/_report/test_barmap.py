# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The BAR map hides nothing: segments cover a BAR without gap or overlap, and are wide enough to be seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.barmap import HOLE, Segment, bar_map, parts
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.record import Area, Region

MIB, GIB = 1 << 20, 1 << 30


def bar(index: int, role: str, reported: int, actual: int, sparse: tuple[Area, ...] = ()) -> Region:
    return Region(index, f"BAR{index}", role, reported, actual, (), sparse, "ok", ())


@pytest.mark.parametrize(("region", "expected"), [
    (bar(4, "usemem", 128, 95), [("usemem", 0, 95), (HOLE, 95, 33)]),
    (bar(4, "usemem", 128, 128), [("usemem", 0, 128)]),
    (bar(4, "usemem", 128, 0), [(HOLE, 0, 128)]),
    (bar(4, "usemem", 128, 500), [("usemem", 0, 128)]),
    (bar(4, "usemem", 128, 95, (Area(0, 95),)), [("usemem", 0, 95), (HOLE, 95, 33)]),
    (bar(4, "usemem", 128, 95, (Area(64, 32), Area(0, 32))),
     [("usemem", 0, 32), (HOLE, 32, 32), ("usemem", 64, 32), (HOLE, 96, 32)]),
    (bar(2, "resmem", 128, 95, (Area(0, 64), Area(32, 64))),
     [("resmem", 0, 64), ("resmem", 64, 32), (HOLE, 96, 32)]),
    (bar(2, "resmem", 128, 95, (Area(120, 64), Area(200, 8), Area(4, 0))), [(HOLE, 0, 120), ("resmem", 120, 8)]),
    (bar(0, "physical", 128, 128, (Area(0, 64), Area(96, 32))), [("physical", 0, 128)]),
])
def test_parts(region: Region, expected: list[tuple[str, int, int]]) -> None:
    assert [(kind, area.offset, area.size) for kind, area in parts(region)] == expected


def test_map_of_a_gh200() -> None:
    config = Region(7, "CONFIG", "config", 4096, 4096, (), (), "ok", ())
    found = bar_map([bar(0, "physical", 16 * MIB, 16 * MIB), bar(1, "absent", 0, 0), bar(2, "resmem", GIB, GIB),
                     bar(4, "usemem", 128 * GIB, 95 * GIB), config])
    assert (found.scale, found.width) == (128 * GIB, 1000)
    assert [(row.region.name, row.enlarged) for row in found.rows] == [("BAR0", True), ("BAR2", False), ("BAR4", False)]
    assert [row.segments for row in found.rows] == [
        (Segment("physical", 0, 16 * MIB, 0, 4),),
        (Segment("resmem", 0, GIB, 0, 7),),
        (Segment("usemem", 0, 95 * GIB, 0, 742), Segment(HOLE, 95 * GIB, 33 * GIB, 742, 258)),
    ]


@pytest.mark.parametrize(("hole", "expected"), [(1, [996, 4]), (GIB - 1, [4, 996])])
def test_a_small_part_is_wide_enough_to_be_seen(hole: int, expected: list[int]) -> None:
    (row,) = bar_map([bar(4, "usemem", GIB, GIB - hole)]).rows
    assert [segment.width for segment in row.segments] == expected


def test_a_bar_of_one_byte_is_a_bar() -> None:
    (row,) = bar_map([bar(0, "physical", 1, 1)]).rows
    assert row.segments == (Segment("physical", 0, 1, 0, 1000),)


def test_without_bars_there_is_no_row() -> None:
    found = bar_map([bar(1, "absent", 0, 0)])
    assert (found.rows, found.scale) == ((), 0)


SIZES = st.integers(0, 1 << 12) | st.integers(0, 1 << 64)
AREAS = st.lists(st.builds(Area, SIZES, SIZES), max_size=12).map(tuple)
BARS = st.builds(bar, st.integers(0, 5), st.sampled_from(["usemem", "resmem", "physical", ""]), SIZES, SIZES, AREAS)


@given(bars=st.lists(BARS, max_size=4), width=st.integers(200, 2000), least=st.integers(1, 8))
def test_segments_cover_every_bar(bars: list[Region], width: int, least: int) -> None:
    found = bar_map(bars, width, least)
    assert [row.region for row in found.rows] == [region for region in bars if region.reported]
    for row in found.rows:
        ends = [segment.offset + segment.size for segment in row.segments]
        assert [segment.offset for segment in row.segments] == [0, *ends[:-1]]
        assert ends[-1] == row.region.reported and all(segment.size > 0 for segment in row.segments)
        rights = [segment.x + segment.width for segment in row.segments]
        assert [segment.x for segment in row.segments] == [0, *rights[:-1]]
        assert rights[-1] <= width and all(segment.width >= least for segment in row.segments)
        exact = row.region.reported * width // found.scale
        assert (rights[-1] > exact) == row.enlarged
        assert rights[-1] == exact or row.enlarged


@given(bars=st.lists(BARS, min_size=1, max_size=4))
def test_neighbours_of_one_kind_are_only_where_areas_touch(bars: list[Region]) -> None:
    for region in bars:
        kinds = [kind for kind, _area in parts(region)]
        assert (HOLE, HOLE) not in set(zip(kinds, kinds[1:]))
        memory = sum(area.size for kind, area in parts(region) if kind != HOLE)
        assert memory <= region.reported


@pytest.mark.parametrize("count", [20, 50, 400])
def test_more_parts_than_there_is_room_for_stay_in_the_drawing(count: int) -> None:
    areas = tuple(Area(2 * number, 1) for number in range(count))
    (row,) = bar_map([bar(4, "usemem", GIB, count, areas)], width=100).rows
    assert len(row.segments) == 2 * count
    assert row.segments[-1].x + row.segments[-1].width == 100
    assert all(segment.width >= min(4, 100 // (2 * count)) for segment in row.segments)
