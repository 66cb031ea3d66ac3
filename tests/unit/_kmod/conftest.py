# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host that these tests start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.nvgrace.passthrough.tests.unit._kmod.fake_host import FakeHost, debian_host


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return debian_host(tmp_path)
