# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws the areas of module_utils for the site: a row for each layer of import-linter's contract (pyproject.toml), in
each box an area with what it imports, from the flowchart of docs/architecture.md, which tests/unit/test_layers.py holds
to the imports themselves."""

from __future__ import annotations

import re
from pathlib import Path
from xml.sax.saxutils import escape

import tomllib

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = "areas import only what stands below them"
FLOWCHART = re.compile(r"```mermaid\nflowchart TD\n(.*?)```\n", re.DOTALL)
WIDTH, HEIGHT, GAP, MARGIN = 760, 54, 18, 24
STYLE = ("rect{fill:#eef4e0;stroke:#5c8f00}text{font-family:sans-serif;font-size:15px;fill:#222;text-anchor:middle}"
         ".small{font-size:12px;fill:#555}")


def arrows_of(flowchart: str) -> dict[str, list[str]]:
    """Area -> areas that it imports."""
    return {start: ends.split(" & ") for start, ends in re.findall(r"^\s+(_\w+) --> (.+)$", flowchart, re.MULTILINE)}


def layers(pyproject: str) -> list[list[str]]:
    """The areas, the highest layer first."""
    (found,) = [contract["layers"] for contract in tomllib.loads(pyproject)["tool"]["importlinter"]["contracts"]
                if contract["name"] == CONTRACT]
    return [row.split(" | ") for row in found]


def draw(rows: list[list[str]], arrows: dict[str, list[str]]) -> str:
    """The SVG. Raises ValueError for an area that stands in one of the two only."""
    areas = {area for row in rows for area in row}
    odd = areas ^ {*arrows, *(end for ends in arrows.values() for end in ends)}
    if odd:
        raise ValueError(f"in the contract or in the flowchart only: {', '.join(sorted(odd))}")
    height = MARGIN * 2 + len(rows) * (HEIGHT + GAP) - GAP
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
             f'height="{height}" role="img">', f"<title>{escape(CONTRACT)}</title><style>{STYLE}</style>",
             f'<rect width="{WIDTH}" height="{height}" style="fill:#fff;stroke:none" rx="6"/>']
    for place, row in enumerate(rows):
        top = MARGIN + place * (HEIGHT + GAP)
        width = (WIDTH - MARGIN * 2 - GAP * (len(row) - 1)) / len(row)
        for column, area in enumerate(row):
            left = MARGIN + column * (width + GAP)
            middle = left + width / 2
            imports = f"imports {', '.join(arrows[area])}" if area in arrows else "imports none of them"
            lines += [f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{HEIGHT}" rx="6"/>',
                      f'<text x="{middle:.1f}" y="{top + 23}">{escape(area)}</text>',
                      f'<text class="small" x="{middle:.1f}" y="{top + 42}">{escape(imports)}</text>']
    return "\n".join([*lines, "</svg>", ""])


def picture() -> str:
    flowchart = FLOWCHART.search((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    if flowchart is None:
        raise ValueError("docs/architecture.md has no flowchart")
    return draw(layers((ROOT / "pyproject.toml").read_text(encoding="utf-8")), arrows_of(flowchart[1]))
