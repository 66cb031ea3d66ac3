# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roots with Debian's libvirts, and the golden domains of the unit tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _link_collection() -> None:
    link = ROOT / ".build" / "ansible_collections" / "nvgrace" / "passthrough"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(ROOT)
    sys.path[:0] = [str(ROOT / ".build"), str(Path(__file__).resolve().parent)]


_link_collection()

from libvirt_root import SUITES, LibvirtRoot  # noqa: E402  (after the path is set)


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LibvirtRoot]:
    """The libvirt of each suite."""
    return {suite: LibvirtRoot(suite, tmp_path_factory.mktemp(suite)) for suite in SUITES}


@pytest.fixture(scope="session", params=SUITES)
def root(request: pytest.FixtureRequest, roots: dict[str, LibvirtRoot]) -> LibvirtRoot:
    """Each suite's libvirt in turn."""
    return roots[request.param]
