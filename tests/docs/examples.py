# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples of the documentation: fenced blocks of the pages, EXAMPLES of the modules, and commands in the text.

A block of commands says beside it how it is tested: ``<!-- example: run -->`` is run, ``<!-- example: host -->`` wants
a host, emulated or real, and is only looked at: program, options, playbook, tags, variables.
"""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")),
         *sorted((ROOT / "roles").glob("*/README.md")), ROOT / "tests" / "lab" / "README.md"]
COMMAND_LANGUAGES = {"console", "bash", "sh", "shell"}
# Blocks that show what is printed, or tell Sphinx something.
NO_EXAMPLES = {"text", "{toctree}", "mermaid"}
_THEN = {"|", ">", ">>", "&&", ";"}
_FENCE = re.compile(r"(?:<!-- example: (?P<how>\w+) -->\n)?^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$", re.M | re.S)
# Programs whose commands in the text are looked at, too.
_INLINE = re.compile(r"`((?:make|molecule test|tests/lab/lab|lab|ansible-playbook|ansible-doc|ansible) [^`]+)`")


@dataclass(frozen=True)
class Example:
    """``where`` is the file and line, ``how`` the mark beside a block of commands."""

    where: str
    language: str
    text: str
    how: str = ""

    def commands(self) -> list[str]:
        """The command lines without prompts, continued lines joined."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        return [re.sub(r"^[#$] ", "", line) for line in joined.splitlines() if line.strip()]


def fenced() -> list[Example]:
    found = []
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        for block in _FENCE.finditer(page):
            line = page.count("\n", 0, block.start("language")) + 1
            found.append(Example(f"{path.relative_to(ROOT)}:{line}", block["language"], block["text"],
                                 block["how"] or ""))
    return found


def in_text() -> list[Example]:
    """Commands in the sentences of pages, and those that the lab's page shows indented."""
    found = []
    for path in PAGES:
        page = re.sub(r"^```.*?^```$", lambda block: "\n" * block[0].count("\n"), path.read_text(encoding="utf-8"),
                      flags=re.M | re.S)
        for match in [*_INLINE.finditer(page), *re.finditer(r"^    (tests/lab/lab [^#\n]+)", page, re.M)]:
            line = page.count("\n", 0, match.start()) + 1
            found.append(Example(f"{path.relative_to(ROOT)}:{line}", "console", " ".join(match[1].split()), "host"))
    return found


def of_modules() -> list[Example]:
    found = []
    for path in sorted((ROOT / "plugins" / "modules").glob("[a-z]*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXAMPLES":
                found.append(Example(f"{path.relative_to(ROOT)}:{node.lineno}", "yaml", ast.literal_eval(node.value)))
    return found


def kind(example: Example) -> str:
    """What a YAML example is: inventory, playbook, tasks or variables."""
    value = yaml.safe_load(example.text)
    if isinstance(value, list):
        return "playbook" if any("hosts" in item or "import_playbook" in str(item) for item in value) else "tasks"
    return "inventory" if "all" in value else "variables"


def words(command: str) -> list[str]:
    """A command's words without assignments before it, what is done with its output, and a comment behind it."""
    found = shlex.split(command.replace("; ", " ; "), comments=True)
    found = found[:next((at for at, word in enumerate(found) if word in _THEN), len(found))]
    while found and re.fullmatch(r"[A-Za-z_]+=.*", found[0]):
        found.pop(0)
    return found
