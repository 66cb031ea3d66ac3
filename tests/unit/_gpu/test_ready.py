# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a GPU may take until it is ready, and that binding it takes as long."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.driver import bind_gpus
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.ready import cxl_seconds, readiness_seconds
from ansible_collections.nvgrace.passthrough.tests.unit._gpu.fake_sysfs import (
    VARIANT,
    FakeHost,
    grace_hopper,
    options,
)

GPU = "0009:01:00.0"


def cxl(status: int, vendor: int = 0x1E98, length: int = 4096) -> bytes:
    data = bytearray(4096)
    struct.pack_into("<III", data, 0x100, 0x23 | 1 << 16, vendor, 0)
    struct.pack_into("<I", data, 0x11C, status)
    return bytes(data[:length])


@pytest.mark.parametrize(("data", "seconds"), [
    (bytes(4096), None), (b"", None), (cxl(1, vendor=0x10DE), None),
    (cxl(1), 2), (cxl(1 | 1 << 13), 5), (cxl(1 | 2 << 13), 17), (cxl(1 | 3 << 13), 65), (cxl(3 | 4 << 13), 257),
    # reserved codes, not yet valid, no answer, and a space that ends before the dword
    (cxl(1 | 5 << 13), 257), (cxl(1 | 7 << 13), 257), (cxl(2 << 13), 257), (cxl(0), 257), (cxl(0xFFFFFFFF), 257),
    (cxl(1, length=0x120), 2), (cxl(1, length=0x11F), None),
])
def test_what_a_gpu_says(data: bytes, seconds: int | None) -> None:
    assert cxl_seconds(data) == seconds
    assert readiness_seconds(data) == (seconds or 30)


class SlowHost(FakeHost):
    """Its GPUs are ready after two seconds."""

    def _probe(self, address: str) -> None:
        time.sleep(2)
        super()._probe(address)


@pytest.mark.parametrize(("status", "bound"), [(1 | 1 << 13, True), (None, False)])
def test_binding_waits_for_what_the_gpu_says_and_for_the_timeout_else(tmp_path: Path, status: int | None,
                                                                      bound: bool) -> None:
    """The driver of a CXL GPU waits in its probe, up to 257 seconds: given up earlier, it would never be bound."""
    host = grace_hopper(tmp_path)
    host.__class__ = SlowHost
    host.write(f"/sys/bus/pci/devices/{GPU}/config", bytes(4096) if status is None else cxl(status))
    wish = options(GPU, timeout=1)
    if bound:
        bind_gpus(host, wish)
    else:
        with pytest.raises(PassthroughError, match="did not end within 1 seconds"):
            bind_gpus(host, wish)
    assert host.driver(GPU) == (VARIANT if bound else None)
