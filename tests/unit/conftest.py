# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the checkout importable as ansible_collections.nvgrace.passthrough, wherever it lies, and coverage of forked
children cheap."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

_ROOT = Path(__file__).resolve().parents[2]


def _link_collection() -> None:
    base = _ROOT / ".build"
    link = base / "ansible_collections" / "nvgrace" / "passthrough"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(_ROOT)
    sys.path.insert(0, str(base))


_link_collection()

# An example that takes long says that the machine is busy, and nothing of what is tested.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_sessionstart(session: pytest.Session) -> None:
    plugin: Any = session.config.pluginmanager.getplugin("_cov")
    if plugin is not None:
        os.register_at_fork(after_in_child=lambda: _forget_the_parent(plugin.cov_controller))


def _forget_the_parent(controller: Any) -> None:
    """Each child writes a file when it ends. By itself coverage writes all into it that the parent has seen so far, and
    the names of all files that may be measured, which made the tests of what forks three times as long."""
    # No interface of coverage does it; where these names are others, it is as slow as by itself.
    with suppress(AttributeError):
        for lines in controller.cov._collector.data.values():
            lines.clear()
        controller.cov._post_save_work = lambda: None
