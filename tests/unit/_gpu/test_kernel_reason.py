# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""A driver that refuses a function says why in the kernel log, and the failure repeats it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu import ops
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.sysfs import read_identity
from ansible_collections.nvgrace.passthrough.tests.unit._gpu.fake_sysfs import FakeHost, x86_card

CARD = "0000:41:00.0"
SAID = "refusing memory 0x60000000 + 0xa0000000 from firmware: it overlaps System RAM"


class LoggingHost(FakeHost):
    """Its kernel says why a probe failed, as the log has it."""

    said = f"3,1,1,-;vfio-pci {CARD}: {SAID}\n"

    def write_sysfs(self, path: str, value: str) -> None:
        try:
            super().write_sysfs(path, value)
        finally:
            if "probe" in path or path.endswith("/bind"):
                with open(self.base / "dev/kmsg", "a", encoding="ascii") as log:
                    log.write(self.said)


def given_to_vfio(root: Path, said: str) -> str:
    """The message with which a card goes to a driver that refuses it."""
    host = x86_card(root)
    host.__class__ = LoggingHost
    host.said = said  # type: ignore[attr-defined]
    host.write("/dev/kmsg", "")
    host.load("vfio_pci")
    host.refuses.add("vfio-pci")
    identity: Any = read_identity(host, CARD)
    device = ops.Device(identity, 7, 5)
    ops.unbind(host, device)
    with pytest.raises(PassthroughError) as caught:
        ops.bind(host, device, "vfio-pci")
    return caught.value.message


def test_the_reason_is_the_kernels(tmp_path: Path) -> None:
    assert given_to_vfio(tmp_path, LoggingHost.said).endswith(f"The kernel log says: {SAID}.")


def test_without_one_the_log_is_named(tmp_path: Path) -> None:
    assert given_to_vfio(tmp_path, "").endswith("The kernel log (dmesg) may say why.")
