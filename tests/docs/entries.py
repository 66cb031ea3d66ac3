# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The entries of docs/troubleshooting.md, as the tests need them."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from messages import HOLE

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
PARTS = ("Cause", "Check", "Remedy", "Made by")
# Runs of this many words, with at least so many characters, tell a message from other English.
_RUNS = ((3, 18), (4, 14))


@dataclass(frozen=True)
class Entry:
    """``patterns`` are the message lines as written, ``parts`` the text of each part by its name."""

    title: str
    patterns: tuple[str, ...]
    parts: dict[str, str]

    def has(self, text: str) -> bool:
        return any(matches(pattern, text) for pattern in self.patterns)


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("..."))), re.DOTALL)


def matches(pattern: str, text: str) -> bool:
    """Whether the beginning of a message (its values are HOLE) reads as the pattern, whose values are ``...``."""
    return _compiled(pattern).match(text.lstrip()) is not None


def entries(page: str) -> list[Entry]:
    found = []
    for block in re.split(r"^### ", page, flags=re.MULTILINE)[1:]:
        block = re.split(r"^## ", block, flags=re.MULTILINE)[0]
        title, _, body = block.partition("\n")
        parts = {name: " ".join(text.split()) for name, text in
                 re.findall(r"^\*\*([A-Z][a-z ]+?)\.?\*\* (.*?)(?=\n\n|\Z)", body, re.MULTILINE | re.DOTALL)}
        found.append(Entry(title, tuple(re.findall(r"^- `(.*)`$", body, re.MULTILINE)), parts))
    return found


def phrases(text: str) -> set[str]:
    """Runs of words of a message without a value in them."""
    found = set()
    for words in (piece.split() for piece in text.split(HOLE)):
        for length, least in _RUNS:
            runs = (" ".join(words[at:at + length]).strip(".:;,'()") for at in range(len(words) - length + 1))
            found |= {run for run in runs if len(run) >= least}
    return found


def quotes(source: str, pattern: str) -> bool:
    """Whether a test has the first part of a message, up to its colon, with values where the pattern has ``...``."""
    pieces = pattern.split(":")[0].split("...")
    return len("".join(pieces)) >= 10 and re.search(".{1,60}?".join(map(re.escape, pieces)), source) is not None


def spoken(source: str) -> str:
    """The text of a test: literals that go on in the next line joined, backslashes of regular expressions removed."""
    return re.sub(r"\\(.)", r"\1", re.sub(r'"\s*\n\s*[rf]*"', "", source))
