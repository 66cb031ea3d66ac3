# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The alias files of Debian's kernels, from their packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _link_collection() -> None:
    link = ROOT / ".build" / "ansible_collections" / "nvgrace" / "passthrough"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(ROOT)
    sys.path.insert(0, str(ROOT / ".build"))


_link_collection()


@pytest.fixture(scope="session")
def kernels() -> dict[str, Path]:
    """Directories with modules.alias and modules.builtin.modinfo by kernel release: two versions, two architectures."""
    done = subprocess.run(["sh", str(ROOT / "tests" / "tools" / "kernel-aliases.sh")], check=True, text=True,
                          stdout=subprocess.PIPE)
    found = {path.name: path for path in sorted(Path(done.stdout.strip()).iterdir())}
    assert len(found) == 4, found
    return found
