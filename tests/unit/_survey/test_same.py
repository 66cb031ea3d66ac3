# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a survey keeps is what the module would have said: on a host with nothing to do, check mode and a real run
return the same. Each on the made-up host of its own tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.driver import bind_gpus
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.configure import configure_host
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.settings import parse_settings
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.stage_config import HOST_CONFIG
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.service import ensure
from ansible_collections.nvgrace.passthrough.plugins.module_utils._survey.ask import unsettled
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.verify import Verifier, VerifyOptions
from ansible_collections.nvgrace.passthrough.tests.unit._gpu.fake_sysfs import (
    RESOURCE_GH,
    VARIANT,
    grace_hopper,
    options,
)
from ansible_collections.nvgrace.passthrough.tests.unit._gpu.trees import GB200, gb200
from ansible_collections.nvgrace.passthrough.tests.unit._host.conftest import Tree
from ansible_collections.nvgrace.passthrough.tests.unit._kmod.fake_host import debian_host, parameters
from ansible_collections.nvgrace.passthrough.tests.unit._vfio.fake_kernel import FakeKernel, hopper_regions

GPU = "0009:01:00.0"


def test_gpu_driver(tmp_path: Path) -> None:
    host = gb200(tmp_path)
    assert unsettled(bind_gpus(host, options(*GB200, check_mode=True)))
    bind_gpus(host, options(*GB200))
    checked = bind_gpus(host, options(*GB200, check_mode=True))
    assert unsettled(checked) is None
    assert bind_gpus(host, options(*GB200)) == checked


def test_dkms_module(tmp_path: Path) -> None:
    host = debian_host(tmp_path)
    assert unsettled(ensure(parameters(), True, host))
    ensure(parameters(), False, host)
    checked = ensure(parameters(), True, host)
    assert unsettled(checked) is None
    assert ensure(parameters(), False, host) == checked


def test_dkms_module_that_lacks_packages_is_not_settled(tmp_path: Path) -> None:
    host = debian_host(tmp_path)
    host.programs.discard("dkms")
    assert unsettled(ensure(parameters(), True, host))


@pytest.mark.parametrize("blacklist", [[], ["nouveau"]])
def test_host_config(tmp_path: Path, blacklist: list[str]) -> None:
    host = Tree(tmp_path).host
    wishes: dict[str, Any] = {"modprobe_blacklist": blacklist, "update_initramfs": "never"}
    params = {name: wishes.get(name, option.get("default")) for name, option in HOST_CONFIG.options.items()}
    settings = parse_settings(params)
    configure_host(host, settings, check_mode=False)
    checked = configure_host(host, settings, check_mode=True)
    assert unsettled(checked) is None
    assert configure_host(host, settings, check_mode=False) == checked


def test_region_verify(tmp_path: Path) -> None:
    host = grace_hopper(tmp_path)
    host.add_function(GPU, group=11, driver=VARIANT, resource=RESOURCE_GH, config=bytes(4096))
    host.write(f"/sys/module/{VARIANT}/parameters/layout", "mainline\n")
    kernel = FakeKernel(tmp_path, hopper_regions())

    def verify(check_mode: bool) -> dict[str, Any]:
        gpus = [{"address": GPU, "expected_memory": 2560 << 20}]
        wish = VerifyOptions(gpus=gpus, timeout=20, check_mode=check_mode)
        return Verifier(host, wish, kernel, machine="aarch64").run()

    assert unsettled(verify(True))
    verify(False)
    checked = verify(True)
    assert unsettled(checked) is None
    assert verify(False) == checked
    assert kernel.openings() == [GPU]
