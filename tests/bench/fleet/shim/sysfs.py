# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sysfs of the unit tests, over the files of the simulated host that this runs on."""

from __future__ import annotations

import os
from pathlib import Path

from fake_sysfs import FakeHost


class Sysfs(FakeHost):
    """Makes nothing, unlike its base: the tree is there."""

    def write(self, path: str, content: str | bytes = "") -> None:
        super().write(path, content)
        if path.startswith("/dev/vfio/"):
            os.chmod(path, 0o600)

    def __init__(self) -> None:
        super(FakeHost, self).__init__("/")
        self.base = Path("/")
        self.refuses: set[str] = set()
        self.blocks: set[str] = set()
        self.late_groups: dict[str, tuple[int, list[str]]] = {}
