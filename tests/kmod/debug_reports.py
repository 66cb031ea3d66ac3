# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""What the debug kernel reports: KASAN, lockdep, UBSAN, warnings; and leaks that kmemleak finds."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from hostside import MODULE

START = re.compile(r"(?P<title>(?:BUG: |WARNING: |UBSAN: |kernel BUG |ODEBUG: |Oops: |refcount_t: |list_\w+ corruption|"
                   r"INFO: task .* blocked|INFO: rcu\w* .*stall|general protection fault).*)")
LONGEST = 120  # lines
KMEMLEAK = Path("/sys/kernel/debug/kmemleak")
# kmemleak leaves alone what is younger, and believes only what two scans in a row found.
KMEMLEAK_AGE = 6.0

# Reports about code that is not this project's, by a pattern of their title, and why they are no fault of the driver.
ALLOWED_IN_FAULTS: Mapping[str, str] = {
    r"WARNING: .*vfio_group_release":
        "vfio_create_group() puts a group that it could not name or add while its iommu_group is still set, and the "
        "release warns of that: the core's own error path, below vfio_pci_core_register_device()",
    r"WARNING: .*__iommu_release_dma_ownership":
        "going back to the default domain must succeed, so the IOMMU core warns when an allocation of its driver fails "
        "then: below iommufd's detach, when the device is closed",
}
ALLOWED_LEAKS: Mapping[str, str] = {
    r"ramfs_init_fs_context": "made once at boot by the kernel itself, before any module",
}


@dataclass(frozen=True)
class Report:
    """One report: its first line, and all of its lines."""

    title: str
    text: str

    @property
    def ours(self) -> bool:
        """Return whether the module is in it."""
        return f"[{MODULE}]" in self.text

    def reason(self, allowed: Mapping[str, str]) -> Optional[str]:
        """Return why it is no fault of the driver, None if it is not known to be none."""
        return next((reason for pattern, reason in allowed.items() if re.search(pattern, self.title)), None)


def log_since(sequence: int) -> tuple:
    """Return the kernel's messages from that number on, the number of the next one, and whether some were lost."""
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    lines: list = []
    first, following = None, sequence
    try:
        while True:
            try:
                prefix, _, text = os.read(fd, 8192).decode(errors="replace").partition(";")
            except BlockingIOError:
                break
            except BrokenPipeError:
                first = None
                continue
            number = int(prefix.split(",")[1])
            if number < sequence:
                continue
            first = number if first is None else first
            following = number + 1
            lines.append(text.splitlines()[0])
    finally:
        os.close(fd)
    return lines, following, first is not None and first > sequence


def reports_in(lines: Iterable[str]) -> list:
    """Return the reports among messages; one ends where the next begins, or after LONGEST lines."""
    found: list = []
    for line in lines:
        match = START.search(line)
        if match:
            found.append([match["title"], line])
        elif found and len(found[-1]) < LONGEST:
            found[-1].append(line)
    return [Report(title, "\n".join(text)) for title, *text in found]


def lockdep_is_on() -> bool:
    """Return whether lockdep still looks: its first report, and any of KASAN, turns it off until the next boot."""
    return bool(re.search(r"debug_locks:\s+1", Path("/proc/lockdep_stats").read_text(encoding="ascii")))


def leaks() -> list:
    """Return what kmemleak has found since it was asked last, one text each."""
    time.sleep(KMEMLEAK_AGE)
    for _ in range(2):
        KMEMLEAK.write_text("scan", encoding="ascii")
    text = KMEMLEAK.read_text(encoding="utf-8", errors="replace")
    KMEMLEAK.write_text("clear", encoding="ascii")
    return [entry for entry in re.split(r"(?m)^(?=unreferenced object)", text) if entry.strip()]


def leak_reason(entry: str) -> Optional[str]:
    """Return why a leak is no fault of the driver, None if it is not known to be none."""
    return next((reason for pattern, reason in ALLOWED_LEAKS.items() if re.search(pattern, entry)), None)
