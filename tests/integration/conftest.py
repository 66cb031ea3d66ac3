# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Emulated hosts for tests that need a real kernel."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from emulated import LAB, EmulatedHost, start


@pytest.fixture(scope="module")
def shared_group_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedHost]:
    """A host with two GPUs in one IOMMU group, and nothing done to it."""
    yield start("refusals", tmp_path_factory.mktemp("lab"), "--gpus", "2", "--fault", "shared-group")
    subprocess.run([LAB, "stop", "refusals"], check=True)


@pytest.fixture(scope="module")
def host_without_iommu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedHost]:
    """A host whose IOMMU is off."""
    yield start("no-iommu", tmp_path_factory.mktemp("lab"), "--fault", "no-iommu")
    subprocess.run([LAB, "stop", "no-iommu"], check=True)
