# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""A kernel argument that needs a reboot, on a simulated host: allowed, not allowed, and one that does not help.

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

WISH = ("-e", '{"gpu_host_kernel_arguments": ["init_on_alloc=0"]}')
ALLOWED = ("-e", '{"gpu_host_reboot_ok": true}')


@pytest.fixture
def host() -> Iterator[Fleet]:
    with fleet(1, ROOT / ".build") as made:
        yield made


def site(host: Fleet, *options: str) -> str:
    measure_site(host, *options)
    return (host.directory / "output").read_text()


def test_a_reboot_that_is_allowed_brings_what_it_is_for(host: Fleet) -> None:
    boot = on_host(host, "cat", "/proc/sys/kernel/random/boot_id")
    output = site(host, *WISH, *ALLOWED)
    assert "init_on_alloc=0" in on_host(host, "cat", "/proc/cmdline")
    assert on_host(host, "cat", "/proc/sys/kernel/random/boot_id") != boot
    assert "needs a reboot (" not in output
    found = record(host)
    assert (found["outcome"], found["reboot_required"]) == ("verified", False)
    # what was done before the reboot is still told
    assert any("grub" in action for action in found["stages"]["gpu_host"]["actions"])
    assert " changed=0 " in site(host, *WISH, *ALLOWED)


def test_a_reboot_that_is_not_allowed_is_said(host: Fleet) -> None:
    output = " ".join(site(host, *WISH).split())
    assert "gb200-0001 needs a reboot (The kernel argument init_on_alloc=0 is not in effect yet.)" in output
    assert "init_on_alloc=0" not in on_host(host, "cat", "/proc/cmdline")
    assert record(host)["reboot_required"] is True
    # and again: nothing is changed any more, and the reboot is still due
    again = " ".join(site(host, *WISH).split())
    assert " changed=0 " in again and "needs a reboot" in again
    # asked for, carried out, and the regions verified in the new boot
    assert " changed=3 " in site(host, *WISH, *ALLOWED) and record(host)["reboot_required"] is False


def test_a_reboot_that_does_not_help_ends_the_host_and_gives_it_back(host: Fleet) -> None:
    on_host(host, "touch", "/etc/default/starts-another-entry")
    with pytest.raises(SystemExit) as ended:
        site(host, *WISH, *ALLOWED)
    told = " ".join(str(ended.value).split())
    assert "gb200-0001 was rebooted, and it is still not as it shall be" in told
    assert "It is given back as it was before." in told
    assert on_host(host, "ls", "/etc/default/grub.d").split() == []


def test_a_check_run_reboots_nothing(host: Fleet) -> None:
    boot = on_host(host, "cat", "/proc/sys/kernel/random/boot_id")
    site(host, *WISH, *ALLOWED, "--check")
    assert on_host(host, "cat", "/proc/sys/kernel/random/boot_id") == boot
