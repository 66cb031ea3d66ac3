# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""mypy --strict over the areas of module_utils, under their real name.

ruff (target-version py39) refuses syntax that the oldest Python of a target host does not have; this checks the types.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / ".build"


def main(areas: list[str]) -> int:
    packages = [f"ansible_collections.nvgrace.passthrough.{area.replace('/', '.')}" for area in areas]
    argv = [sys.executable, "-m", "mypy", "--strict", "--namespace-packages", "--explicit-package-bases",
            "--ignore-missing-imports", "--follow-untyped-imports"]
    for package in packages:
        argv += ["-p", package]
    return subprocess.run(argv, cwd=BASE, env={**os.environ, "MYPYPATH": str(BASE)}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
