# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""A GPU that says by CXL that its memory may take minutes to be ready: gpu_driver waits for it as long as its driver
does, whatever its own timeout is."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
from emulated import LAB, EmulatedHost, start

NAME = "slow-gpu"
ADDRESS = "0000:00:10.0"
# Its id, which was seen on one such GPU, is in no driver's table.
DRIVER = "nvgrace-gpu-vfio-pci"
READY_AFTER = 30.0
TIMEOUT = 10
WISH = {"gpus": [{"address": ADDRESS}], "driver": DRIVER, "timeout": TIMEOUT}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedHost]:
    yield start(NAME, tmp_path_factory.mktemp("lab"), "--product", "vera-cxl")
    subprocess.run([LAB, "stop", NAME], check=True)


def gpu(*request: str) -> None:
    subprocess.run([LAB, "gpu", NAME, "0", *request], check=True)


def test_it_is_waited_for(host: EmulatedHost) -> None:
    assert not host.module("dkms_module", {})["failed"]
    gpu("timeout-code", "4")
    gpu("not-ready")
    timer = threading.Timer(READY_AFTER, gpu, ("ready",))
    timer.start()
    try:
        started = time.monotonic()
        result = host.module("gpu_driver", WISH)
        took = time.monotonic() - started
    finally:
        timer.join()
    assert not result["failed"], result
    assert took > READY_AFTER > TIMEOUT
    assert host.drivers(ADDRESS) == ["nvgrace_gpu_vfio_pci"]
    again = host.module("gpu_driver", WISH)
    assert (again["failed"], again["changed"]) == (False, False), again
    assert not host.module("gpu_driver", {"state": "released"})["failed"]
    assert host.drivers(ADDRESS) == ["none"]


def test_what_it_says_is_what_is_waited_for(host: EmulatedHost) -> None:
    """Sixteen seconds and one: the driver gives it up by itself, and says so."""
    gpu("timeout-code", "2")
    gpu("not-ready")
    result = host.module("gpu_driver", WISH)
    gpu("ready")
    assert result["failed"] and "the driver refused it" in result["msg"], result
    assert re.search(r"not ready within 1[67] s", result["msg"]), result
    assert host.drivers(ADDRESS) == ["none"]
