# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is killed at any of its steps leaves a host that the next run brings to the end, and that can be given
back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core import plan
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.driver import (
    DriverOptions,
    bind_gpus,
    release_gpus,
)
from ansible_collections.nvgrace.passthrough.tests.unit._gpu.fake_sysfs import FakeHost, x86_card

CARD, AUDIO = "0000:41:00.0", "0000:41:00.1"
BIND = DriverOptions(gpus=[{"address": CARD}], consent=frozenset({AUDIO}), timeout=5)
RELEASE = DriverOptions(gpus=None, timeout=5)


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def make_host(root: Path) -> FakeHost:
    host = x86_card(root)
    host.with_udev()
    host.write("/etc/modules-load.d/nvgrace-passthrough.conf", "loop\n")
    return host


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int, before: bool) -> None:
    """Ends the run at step ``number`` of the plan, before or after the step was carried out."""
    done = 0
    apply_step = plan.apply_step

    def counting(host: Any, step: Any, journal: Any) -> None:
        nonlocal done
        done += 1
        if before and done == number:
            raise Killed
        apply_step(host, step, journal)
        if done == number:
            raise Killed

    monkeypatch.setattr(plan, "apply_step", counting)


def plan_length(root: Path, release: bool) -> int:
    host = make_host(root)
    result = bind_gpus(host, BIND)
    return len((release_gpus(host, RELEASE) if release else result)["actions"])


@pytest.mark.parametrize("before", [True, False])
def test_bind_killed_at_each_step(tmp_path: Path, before: bool) -> None:
    length = plan_length(tmp_path / "whole", False) - 1  # the module is loaded before the plan
    assert length > 8
    for number in range(1, length + 1):
        host = make_host(tmp_path / str(number))
        original = host.manifest()
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, number, before)
            with pytest.raises(Killed):
                bind_gpus(host, BIND)
        bind_gpus(host, BIND)
        assert (host.driver(CARD), host.driver(AUDIO)) == ("vfio-pci", "vfio-pci")
        assert not bind_gpus(host, BIND)["changed"]
        release_gpus(host, RELEASE)
        assert host.manifest() == original


@pytest.mark.parametrize("before", [True, False])
def test_release_killed_at_each_step(tmp_path: Path, before: bool) -> None:
    length = plan_length(tmp_path / "whole", True)
    assert length > 8
    for number in range(1, length + 1):
        host = make_host(tmp_path / str(number))
        original = host.manifest()
        bind_gpus(host, BIND)
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, number, before)
            with pytest.raises(Killed):
                release_gpus(host, RELEASE)
        release_gpus(host, RELEASE)
        assert host.manifest() == original
        assert not release_gpus(host, RELEASE)["changed"]
