# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each place where a rule is switched off says why: behind it, in the comment above it, or where the file did so first.

Looks at ruff's and ansible-lint's noqa, shellcheck's disable, and mypy's ignore in what mypy reads; and at what
ansible-test ignores.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from gate import ROOT, finish, tracked

_WORD = r"[\w\[\]-]+"
_SWITCH = re.compile(rf"# (?:noqa|shellcheck disable|type: ignore)(?P<codes>(?:[:=] ?{_WORD}(?:, ?{_WORD})*)?"
                     r"(?:\[[\w, -]+\])?)(?P<reason>.*)")
_COMMENT = re.compile(r"\s*#+ (?!shellcheck )\w")
_IGNORES = re.compile(r"\S+ \S+ # \S.*")
# mypy reads module_utils alone; elsewhere its comments help editors.
MYPY = "plugins/module_utils/"


def switches(lines: list[str]) -> Iterator[tuple[int, str, bool]]:
    """Number of the line, the codes, and whether a reason stands behind them or above."""
    for number, line in enumerate(lines):
        found = _SWITCH.search(line)
        if found is not None:
            above = number > 0 and _COMMENT.match(lines[number - 1]) is not None
            yield number + 1, found["codes"], above or bool(re.search(r"\w{3}", found["reason"]))


def unexplained(name: str, text: str) -> list[str]:
    """Switches of a file whose codes it did not explain before either."""
    explained: set[str] = set()
    problems = []
    for number, codes, reason in switches(text.splitlines()):
        mine = set(re.findall(r"[A-Za-z]+\d+|[a-z][a-z-]+", codes))
        if reason:
            explained |= mine
        elif not mine or not mine <= explained:
            problems.append(f"{name}:{number}: {codes.lstrip(':= ') or 'everything'} is switched off without a reason")
    return problems


def problems_of(name: str, text: str) -> list[str]:
    if name.startswith("tests/sanity/ignore-"):
        return [f"{name}: without a reason: {line}" for line in text.splitlines() if not _IGNORES.fullmatch(line)]
    if not name.startswith(MYPY):
        text = re.sub(r"# type: ignore\S*", "", text)
    return unexplained(name, text)


def main() -> int:
    problems: list[str] = []
    for name in tracked(new=True):
        path = ROOT / name
        try:
            problems += problems_of(name, path.read_text())
        except UnicodeDecodeError:
            continue  # tables of firmware and the like, as bytes
    return finish(problems)


if __name__ == "__main__":
    sys.exit(main())
