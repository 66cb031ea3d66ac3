#!/usr/bin/env python3
# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes meta/argument_specs.yml and defaults/main.yml of roles/gpu_survey: the options of all roles of site.yml and
their defaults, each as its own role has it.

site.yml checks them there once, before anything is done, in place of once in each role. ``--check`` writes nothing and
fails where a file is not what it would be.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROLES = Path(__file__).resolve().parents[2] / "roles"
# In the order of site.yml.
STAGES = ("gpu_preflight", "gpu_host", "gpu_kmod", "gpu_bind", "gpu_verify", "gpu_domain", "gpu_report")
TOP = """\
# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
---
# Written by tests/tools/survey_specs.py from the other roles' own: change those, and run it.
"""
# for ansible-lint, with the reason for readers of the file
NOQA = "# noqa: var-naming[no-role-prefix]"
WHY = "# They are the other roles' variables, so they have those roles' prefixes.\n"
HEAD = """\
argument_specs:
  main:
    short_description: Asks in one call which stages of a host have nothing to do
    description:
      - >-
        Runs host_survey with the arguments of all roles of C(site.yml). So its options are those of all of them, and
        C(site.yml) checks them here, before the first change.
    author: The nvgrace.passthrough contributors
    version_added: 1.0.0
    options:
"""


def blocks(text: str, indent: str) -> dict[str, str]:
    """The lines of each key of a mapping that is indented so, by its name."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines(keepends=True):
        if line.startswith(indent) and line[len(indent)] not in " -#":
            name = line.partition(":")[0].strip()
        if name:
            found[name] = found.get(name, "") + line
    return found


def merged(file: str, after: str, indent: str) -> str:
    """One mapping of all roles' files. What several have is the first one's."""
    every: dict[str, str] = {}
    for role in STAGES:
        text = (ROLES / role / file).read_text().partition(after)[2]
        every = {**blocks(text, indent), **every}
    return "".join(every[name] for name in sorted(every))


def files() -> dict[Path, str]:
    specs, defaults = "meta/argument_specs.yml", "defaults/main.yml"
    return {ROLES / "gpu_survey" / specs: TOP + HEAD + merged(specs, "    options:\n", " " * 6),
            ROLES / "gpu_survey" / defaults: TOP + WHY + "".join(
                f"{line.partition('  #')[0]}  {NOQA}\n"
                for line in merged(defaults, "---\n", "").splitlines())}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for path, text in files().items():
        if not check:
            path.write_text(text)
        elif path.read_text() != text:
            sys.exit(f"{path.relative_to(ROLES.parent)} is not what the other roles say: run this without --check.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
