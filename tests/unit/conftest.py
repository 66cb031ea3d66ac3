# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the checkout importable as ansible_collections.nvgrace.passthrough, wherever it lies."""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def _link_collection() -> None:
    base = _ROOT / ".build"
    link = base / "ansible_collections" / "nvgrace" / "passthrough"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(_ROOT)
    sys.path.insert(0, str(base))


_link_collection()
