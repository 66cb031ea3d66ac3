# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""shellcheck over every shell script that git tracks, found by its first lines."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
_SHELL = re.compile(r"#!.*[/ ](sh|bash)\b|(#.*\n)*# shellcheck shell=")
# What is left out in a file, and why. Other exceptions stand in the scripts, beside what they are for.
EXCLUDED = {
    # SC2013: the loop wants the words of /proc/cmdline. A comment in this file would make every image of a host anew.
    "tests/lab/image/tiny-init": "SC2013",
}


def is_shell(text: str) -> bool:
    """Whether a file with this text is a script that shellcheck can read."""
    return _SHELL.match(text) is not None


def scripts(names: Iterable[str]) -> list[str]:
    found = []
    for name in names:
        path = ROOT / name
        if path.is_file() and not path.is_symlink() and is_shell(path.read_bytes()[:2000].decode("utf-8", "replace")):
            found.append(name)
    return found


def main() -> int:
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found = scripts(sorted(filter(None, listed.split("\0"))))
    check = [str(BIN / "shellcheck"), "--external-sources"]
    most = [name for name in found if name not in EXCLUDED]
    failed = subprocess.run([*check, *most], cwd=ROOT, check=False).returncode
    for name, codes in EXCLUDED.items():
        failed |= subprocess.run([*check, f"--exclude={codes}", name], cwd=ROOT, check=False).returncode
    print(f"{len(found)} scripts")
    return 1 if failed or not found else 0


if __name__ == "__main__":
    sys.exit(main())
