# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pictures of docs/bar2.md are what the layout code says today."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
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
