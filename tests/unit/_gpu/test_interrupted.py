# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is killed (SIGKILL, in a process of its own) before or after any step, or in the middle of writing any
file, leaves a host that the next run brings to the end, and that can be given back as it was."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core import plan
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.runner import host_lock
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu import ops
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.driver import bind_gpus
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.giveback import release_gpus
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.options import DriverOptions
from ansible_collections.nvgrace.passthrough.tests.unit._gpu.fake_sysfs import FakeHost, grace_hopper, x86_card

CARD, AUDIO = "0000:41:00.0", "0000:41:00.1"


def wish(*addresses: str, **changes: Any) -> DriverOptions:
    return DriverOptions(gpus=[{"address": address} for address in addresses], timeout=5, **changes)


@dataclass(frozen=True)
class Scenario:
    """``prepare`` runs before ``killed`` does, and the host is as it was once all is given back."""

    make: Callable[[Path], FakeHost]
    killed: Callable[[FakeHost], Any]
    prepare: Callable[[FakeHost], Any] = field(default=lambda _host: None)


def locked(work: Callable[[FakeHost], Any]) -> Callable[[FakeHost], Any]:
    """As the module does it."""
    def run(host: FakeHost) -> Any:
        with host_lock(host):
            return work(host)
    return run


def binder(options: DriverOptions) -> Callable[[FakeHost], Any]:
    return locked(lambda host: bind_gpus(host, options))


def releaser(*addresses: str) -> Callable[[FakeHost], Any]:
    options = DriverOptions(gpus=[{"address": address} for address in addresses] or None, timeout=5)
    return locked(lambda host: release_gpus(host, options))


TWO = ("0009:01:00.0", "0019:01:00.0")


def two_gpus(root: Path) -> FakeHost:
    host = grace_hopper(root)
    host.add_function(TWO[1], group=12, driver="nouveau")
    return host


ONE = wish("0009:01:00.0")
GROUP = wish(CARD, consent=frozenset({AUDIO}))
SCENARIOS = {
    "bind one": Scenario(grace_hopper, binder(ONE)),
    "bind one until the next boot": Scenario(grace_hopper, binder(wish("0009:01:00.0", persistent=False))),
    "bind a group of two": Scenario(x86_card, binder(GROUP)),
    "bind a group of two until the next boot": Scenario(
        x86_card, binder(wish(CARD, consent=frozenset({AUDIO}), persistent=False))),
    "bind for a user group": Scenario(x86_card, binder(wish(CARD, consent=frozenset({AUDIO}), device_group="vfio"))),
    "bind one more": Scenario(two_gpus, binder(wish(*TWO)), binder(wish(TWO[0]))),
    "to another driver": Scenario(grace_hopper, binder(wish("0009:01:00.0", driver="odd_module")), binder(ONE)),
    "from boot to boot to until the next boot": Scenario(
        grace_hopper, binder(wish("0009:01:00.0", persistent=False)), binder(ONE)),
    "release one": Scenario(grace_hopper, releaser(), binder(ONE)),
    "release a group of two": Scenario(x86_card, releaser(), binder(GROUP)),
    "release for a user group": Scenario(x86_card, releaser(), binder(wish(CARD, consent=frozenset({AUDIO}),
                                                                           device_group="vfio"))),
    "release one of two": Scenario(two_gpus, releaser(TWO[0]), binder(wish(*TWO))),
}


def make_host(scenario: Scenario, root: Path) -> tuple[FakeHost, dict[str, str]]:
    """The host before the run that is killed, and what it was originally."""
    host = scenario.make(root)
    host.with_udev()
    host.write("/etc/modules-load.d/nvgrace-passthrough.conf", "loop\n")
    original = host.manifest()
    scenario.prepare(host)
    return host, original


class Killer:
    """Ends the process at a chosen moment: moments are before each step, around each rename of a file that has been
    written, and at the end."""

    def __init__(self, moment: int) -> None:
        self.left = moment

    def tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **keywords: Any) -> Any:
            self.tick()
            return function(*arguments, **keywords)
        return called

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **keywords: Any) -> Any:
            self.tick()
            value = function(*arguments, **keywords)
            self.tick()
            return value
        return called


def killed_at(scenario: Scenario, host: FakeHost, moment: int) -> bool:
    """Runs the scenario in a child that kills itself at the moment; False where it ended before."""
    pid = os.fork()
    if pid == 0:
        killer = Killer(moment)
        plan.apply_step = killer.before(plan.apply_step)
        os.replace = killer.around(os.replace)
        scenario.killed(host)
        killer.tick()
        os._exit(0)
    _pid, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_each_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(os, "fsync", lambda _handle: None)  # thousands of them; what a crash of the machine needs
    # a child for each of thousands of writes would be most of the time; what is killed here is the run itself
    monkeypatch.setattr(ops, "run_in_child", lambda function, _timeout, _what: function())
    scenario = SCENARIOS[name]
    host, original = make_host(scenario, tmp_path / "whole")
    scenario.killed(host)
    wanted = host.manifest()
    moment = 0
    while True:
        moment += 1
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        host, original = make_host(scenario, tmp_path / "run")
        if not killed_at(scenario, host, moment):
            break
        shutil.copytree(tmp_path / "run", tmp_path / "straight", symlinks=True)
        scenario.killed(host)
        assert host.manifest() == wanted, f"the next run after moment {moment}"
        assert not scenario.killed(host)["changed"]
        releaser()(host)
        assert host.manifest() == original, f"giving back after the next run after moment {moment}"
        # and without a next run: straight back
        host.base, host.root = tmp_path / "straight", str(tmp_path / "straight")
        releaser()(host)
        assert host.manifest() == original, f"giving back straight after moment {moment}"
        shutil.rmtree(tmp_path / "straight")
    assert moment > 5
