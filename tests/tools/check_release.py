# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cuts the release of CONTRIBUTING.md in a copy: the changelog from the fragments, then the tarball with it."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

import build_collection
import yaml
from gate import ROOT, copy_tracked, finish

BIN = Path(sys.executable).parent
FRAGMENTS = ROOT / "changelogs" / "fragments"


def released(copy: Path) -> Path:
    """The tracked files in COPY, in a repository without history, with the changelog of galaxy.yml's version."""
    copy_tracked(copy)
    release = [str(BIN / "antsibull-changelog"), "release", "--date", "2000-01-01"]
    # it looks for ansible-doc on PATH
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    for argv in (["git", "init", "--quiet", "."], release, ["git", "add", "--all"]):
        subprocess.run(argv, cwd=copy, env=environment, check=True)
    return copy


def entries(sections: Mapping[str, str | list[str]]) -> set[str]:
    """What the sections of a fragment, or of a release, say; the summary is one text and no list."""
    return {entry for said in sections.values() for entry in ([said] if isinstance(said, str) else said)}


def missing(changes: Mapping[str, str | list[str]]) -> set[str]:
    """Entries of the fragments that a release does not have."""
    fragments = (yaml.safe_load(path.read_text()) for path in FRAGMENTS.glob("*.yml"))
    return set().union(*map(entries, fragments)) - entries(changes)


def main() -> int:
    with tempfile.TemporaryDirectory() as directory:
        copy = released(Path(directory, "copy"))
        tarball = build_collection.build(Path(directory), copy)
        with tarfile.open(tarball) as members:
            names = members.getnames()
        version = yaml.safe_load((copy / "galaxy.yml").read_text())["version"]
        releases = yaml.safe_load((copy / "changelogs" / "changelog.yaml").read_text())["releases"]
        left = sorted(path.name for path in (copy / "changelogs" / "fragments").glob("*.yml"))
    problems = [f"the changelog has not: {entry}" for entry in sorted(missing(releases[version]["changes"]))]
    problems += [f"{name} is left" for name in left]
    problems += [f"{name} is not in the tarball" for name in ("CHANGELOG.md", "changelogs/changelog.yaml")
                 if name not in names]
    return finish(problems, f"release {version}: ")


if __name__ == "__main__":
    sys.exit(main())
