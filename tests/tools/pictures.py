# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws the pictures of docs/bar2.md from the product table and from the layouts that region_verify expects.

Run it to write them to docs/pictures; a test compares what is there with what would be drawn.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT / ".build") not in sys.path:
    sys.path.insert(0, str(ROOT / ".build"))

# after the path is set
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.products import PRODUCTS  # noqa: E402
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.text import human_size  # noqa: E402
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.layout import (  # noqa: E402
    GIB,
    EmulatedRegion,
    bar2,
    mainline,
)

PICTURES = ROOT / "docs" / "pictures"
WIDTH, LEFT, ROW, BAR = 840, 70, 62, 26
COLOURS = {"usemem": "#76b900", "resmem": "#e08a00", "memory": "#8fa3ad"}
STYLE = ("text{font-family:sans-serif;font-size:13px;fill:#222}.small{font-size:12px;fill:#555}"
         ".title{font-size:15px;font-weight:bold}")
# Narrower than this no piece can be seen; the picture says so.
LEAST = 5.0


@dataclass(frozen=True)
class Piece:
    """A stretch of a bar, in bytes; without a colour it is a hole."""

    size: int
    colour: str


@dataclass(frozen=True)
class Bar:
    name: str
    pieces: tuple[Piece, ...]
    caption: str


def of_region(region: EmulatedRegion) -> Bar:
    hole = region.reported - region.actual
    caption = f"{region.role}: {human_size(region.actual)} of {human_size(region.reported)}"
    caption += f", a hole of {human_size(hole)}" if hole else ", no hole"
    return Bar(f"BAR{region.index}", (Piece(region.actual, COLOURS[region.role]), Piece(hole, "")), caption)


def bars_of(memory: int, mig_bug: bool) -> list[tuple[str, list[Bar]]]:
    """The headings of a picture, each with its bars."""
    whole = Bar("memory", (Piece(memory, COLOURS["memory"]),), f"{human_size(memory)}, as firmware describes it")
    return [("The GPU's memory, in the physical address space of the host", [whole]),
            ("layout=mainline", [of_region(region) for region in mainline(memory, mig_bug)]),
            ("layout=bar2", [of_region(region) for region in bar2(memory)])]


def draw_bar(bar: Bar, top: int, scale: float) -> list[str]:
    lines = [f'<text x="{LEFT - 10}" y="{top + 18}" text-anchor="end">{escape(bar.name)}</text>']
    at = float(LEFT)
    for piece in bar.pieces:
        if not piece.size:
            continue
        width = max(piece.size * scale, LEAST)
        look = f'fill="{piece.colour}"' if piece.colour else 'fill="url(#hole)"'
        lines.append(f'<rect x="{at:.1f}" y="{top}" width="{width:.1f}" height="{BAR}" {look} stroke="#333"/>')
        at += width
    lines.append(f'<text class="small" x="{LEFT}" y="{top + BAR + 16}">{escape(bar.caption)}</text>')
    return lines


def picture(title: str, memory: int, mig_bug: bool) -> str:
    """The SVG of one size of memory; all of its bars have one scale."""
    groups = bars_of(memory, mig_bug)
    largest = max(sum(piece.size for piece in bar.pieces) for _heading, bars in groups for bar in bars)
    scale = (WIDTH - LEFT - 30) / largest
    lines, top = [f'<text class="title" x="20" y="28">{escape(title)}</text>'], 44
    for heading, bars in groups:
        lines.append(f'<text x="20" y="{top + 16}" font-weight="bold">{escape(heading)}</text>')
        top += 26
        for bar in bars:
            lines += draw_bar(bar, top, scale)
            top += ROW
    return "\n".join([
        # REUSE-IgnoreStart
        "<!-- Copyright: Contributors to the nvgrace.passthrough project -->",
        "<!-- SPDX-License-Identifier: GPL-3.0-or-later -->",
        # REUSE-IgnoreEnd
        "<!-- Drawn by tests/tools/pictures.py. -->",
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" '
        'role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        '<defs><pattern id="hole" width="8" height="8" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect width="8" height="8" fill="#fff"/><path d="M0 0V8" stroke="#999" stroke-width="3"/></pattern></defs>',
        f'<rect width="{WIDTH}" height="{top}" fill="#fff" rx="6"/>', *lines, "</svg>", ""])


def pictures() -> dict[str, str]:
    """The SVG files by name: one for each size of memory that a product has."""
    found = {}
    for product in PRODUCTS:
        names = ", ".join(item.key for item in PRODUCTS if item.memory == product.memory)
        bug = product.family == "grace-hopper"
        found[f"bars-{product.memory // GIB}.svg"] = picture(
            f"{names}: {human_size(product.memory)}{', with the MIG hardware bug' if bug else ''}", product.memory, bug)
    return found


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for name, text in pictures().items():
        (PICTURES / name).write_text(text, encoding="utf-8")
        print(PICTURES / name)
