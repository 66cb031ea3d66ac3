# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pictures of docs/bar2.md are what the layout code says today."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from layers_picture import arrows_of, draw, layers
from layers_picture import picture as layers_picture
from pictures import GIB, LEAST, PICTURES, PRODUCTS, pictures

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bar2.md"
DRAWN = pictures()


def test_the_files_are_what_would_be_drawn() -> None:
    """Run tests/tools/pictures.py where this fails, and look at what has changed."""
    assert {path.name: path.read_text() for path in PICTURES.glob("*.svg")} == DRAWN


def test_the_page_shows_each_picture() -> None:
    shown = re.findall(r"\(pictures/([^)]+)\)", PAGE.read_text())
    assert sorted(shown) == sorted(DRAWN)


@pytest.mark.parametrize("name", DRAWN)
def test_bars_are_to_scale(name: str) -> None:
    """The widths of memory and hole have the ratio of their bytes, where they are wide enough to be seen."""
    memory = next(product.memory for product in PRODUCTS if f"bars-{product.memory // GIB}.svg" == name)
    boxes = ET.fromstring(DRAWN[name]).iter("{http://www.w3.org/2000/svg}rect")
    widths = [float(item.get("width", 0)) for item in boxes if item.get("stroke")]
    whole, whole_in_bar2, hole_in_bar2 = widths[0], widths[-2], widths[-1]
    assert whole == whole_in_bar2 and min(widths) >= LEAST
    reported = 1 << (memory - 1).bit_length()
    assert abs(hole_in_bar2 / whole - (reported - memory) / memory) < 0.01


def test_the_layers_are_a_row_each_with_what_their_areas_import() -> None:
    texts = [item.text or "" for item in ET.fromstring(layers_picture()).iter("{http://www.w3.org/2000/svg}text")]
    shown = dict(zip(texts[::2], texts[1::2], strict=True))
    areas = {path.name for path in (PAGE.parents[1] / "plugins" / "module_utils").glob("_*") if path.is_dir()}
    assert set(shown) == areas
    assert shown["_gpu"] == "imports _core" and shown["_core"] == "imports none of them"


CONTRACT = """[[tool.importlinter.contracts]]
name = "areas import only what stands below them"
layers = ["_a", "_b | _c"]
"""


def test_a_box_is_below_what_imports_it_and_beside_its_like() -> None:
    boxes = list(ET.fromstring(draw(layers(CONTRACT), arrows_of("    _a --> _b & _c\n"))).iter(
        "{http://www.w3.org/2000/svg}rect"))[1:]
    (_ax, ay), (bx, by), (cx, cy) = [(float(box.get("x", 0)), float(box.get("y", 0))) for box in boxes]
    assert ay < by == cy and bx < cx


@pytest.mark.parametrize("flowchart", ["    _a --> _b\n", "    _a --> _b & _c & _d\n"])
def test_a_contract_that_is_not_the_flowcharts_is_an_error(flowchart: str) -> None:
    with pytest.raises(ValueError, match="in the contract or in the flowchart only: _[cd]$"):
        draw(layers(CONTRACT), arrows_of(flowchart))
