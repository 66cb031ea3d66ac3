# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stops site.yml before the first change on a simulated host: one sentence, and the host as it was.

Needs a mount namespace of its own and root: tests/run does that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT / ".build")]

# where the line above leads
from hosts import Fleet, fleet, on_host, record  # noqa: E402
from measure import measure_site  # noqa: E402

# In these is all that the stages write.
PLACES = ("/etc", "/usr/src", "/var/lib")


@pytest.fixture(scope="module")
def host() -> Iterator[Fleet]:
    with fleet(1, ROOT / ".build") as made:
        # no host has it before a first run, and a run removes it where nothing is in it
        on_host(made, "rmdir", "/var/lib/nvgrace-passthrough")
        yield made


def state(host: Fleet) -> set[str]:
    """Each file with its size and time, and what NVIDIA's driver has."""
    return {*on_host(host, "find", *PLACES, "-printf", "%p %s %T@\\n").splitlines(),
            *on_host(host, "ls", "/sys/bus/pci/drivers/nvidia").splitlines()}


def refusal(host: Fleet, *options: str) -> str:
    """What a run that must fail ends with. Nothing of ours is on the host after it, and its record says so."""
    before = state(host)
    with pytest.raises(SystemExit) as ended:
        measure_site(host, *options)
    assert state(host) ^ before == set()
    found = record(host)
    assert (found["outcome"], found["after_failure"]) == ("failed", "Nothing was changed.")
    told = " ".join(str(ended.value).split())
    assert " ".join(found["failure"].split()) in told
    return told


def test_no_gpu_is_listed(host: Fleet) -> None:
    told = refusal(host, "-e", '{"nvgrace_gpus": []}')
    assert "nvgrace_gpus is empty: list the GPUs of gb200-0001 by address, or by vendor_device and count." in told


def test_a_check_that_does_not_exist_is_accepted(host: Fleet) -> None:
    told = refusal(host, "-e", '{"gpu_preflight_accept": ["iommu-absent"]}')
    assert "gpu_preflight_accept names no check: iommu-absent. The checks are" in told and "iommu-present" in told


def test_a_check_fails_with_why_and_remedy(host: Fleet) -> None:
    on_host(host, "mv", "/sys/class/iommu", "/sys/class/iommu.away")
    try:
        told = refusal(host)
    finally:
        on_host(host, "mv", "/sys/class/iommu.away", "/sys/class/iommu")
    assert "gb200-0001 is not ready: [iommu-present] The kernel has no IOMMU in use, so no device" in told
