# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel said of a device while something was done to it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Optional

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.kernel_log import KernelLog

GPU = "0000:00:10.0"
OLD = f"3,400,1000,-;nvgrace_gpu_vfio_pci {GPU}: said before\n"


@pytest.mark.parametrize(("said", "reason"), [
    ("", None),
    (f"3,401,2000,-;nvgrace_gpu_vfio_pci {GPU}: refusing memory: it overlaps System RAM\n SUBSYSTEM=pci\n",
     "refusing memory: it overlaps System RAM"),
    (f"6,401,2000,-;nvgrace_gpu_vfio_pci {GPU}: all is well\n", None),
    ("3,401,2000,-;nvgrace_gpu_vfio_pci 0000:00:11.0: another device\n", None),
    # Bits above the level are the facility; the flags may be followed by more fields.
    (f"11,401,2000,c,caller=T1;vfio-pci {GPU}: first\n12,402,2001,-;vfio-pci {GPU}: second\n"
     f"4,403,2002,-;vfio-pci {GPU}: third\n", "second; third"),
    (f"3,401,2000,-;vfio-pci {GPU}: " + "x" * 400 + "\n", "x" * 300),
    ("no record\n", None),
])
def test_reason(tmp_path: Path, said: str, reason: Optional[str]) -> None:
    log = tmp_path / "dev" / "kmsg"
    log.parent.mkdir()
    log.write_text(OLD)
    with KernelLog(Host(str(tmp_path)), GPU) as kernel:
        with log.open("a") as stream:
            stream.write(said)
        assert kernel.reason() == reason


def test_what_the_kernel_keeps(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "kmsg").write_text(OLD + f"4,401,2000,-;nvgrace_gpu_vfio_pci {GPU}: another matter\n")
    with KernelLog(Host(str(tmp_path)), GPU, all_kept=True) as kernel:
        assert kernel.reason("said") == "said before"


@pytest.mark.parametrize(("driver", "reason"), [("", "ours; theirs"), ("first", "ours"), ("first_too", "theirs"),
                                                ("fir", None)])
def test_what_another_driver_said(tmp_path: Path, driver: str, reason: Optional[str]) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "kmsg").write_text(f"4,401,2000,-;first {GPU}: ours\n4,402,2001,-;first_too {GPU}: theirs\n")
    with KernelLog(Host(str(tmp_path)), GPU, all_kept=True) as kernel:
        assert kernel.reason(driver=driver) == reason


def test_a_log_that_cannot_be_read_has_no_reason(tmp_path: Path) -> None:
    with KernelLog(Host(str(tmp_path)), GPU) as kernel:
        assert kernel.reason() is None


@pytest.mark.parametrize(("answers", "reason"), [
    ([BrokenPipeError(), f"3,9,9,-;x {GPU}: kept\n".encode(), BlockingIOError()], "kept"),
    ([OSError(5, "broken")], None),
])
def test_a_log_that_runs_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: list[Any],
                              reason: Optional[str]) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "kmsg").write_text("")
    rest = iter(answers)

    def read(fd: int, size: int) -> bytes:
        answer = next(rest)
        if isinstance(answer, OSError):
            raise answer
        return bytes(answer)

    with KernelLog(Host(str(tmp_path)), GPU) as kernel:
        monkeypatch.setattr(os, "read", read)
        assert kernel.reason() == reason
        monkeypatch.undo()
