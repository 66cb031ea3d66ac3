# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""What the kernel says and holds: its log, its memory, the module's references."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from hostside import MODULE, kernel_mappings

WARNING_LEVEL = 4
SETTLE = 2.0  # seconds: for what RCU and work queues free

# Caches of file systems: they come and go with what else runs on the host, and a VFIO device has nothing in them.
FILE_SYSTEMS = re.compile(r"dentry|buffer_head|radix_tree_node|kernfs_node_cache|ext4_.*|\w+_inode_cache")
# The debug kernel's own. lib/debugobjects.c keeps free records of timers and work items in pools for each processor,
# and fills these in batches; kmemleak has a record of each object of all caches, those of file systems too, and says
# by itself which of them nobody refers to.
DEBUGGING = re.compile(r"debug_objects_cache|kmemleak_object")

# Messages of level warning and above that are no sign of a fault, with the reason.
ALLOWED = {
    r"Device is currently in use, task \".*\" \(\d+\) blocked until device is released":
        "vfio says so when a device is unbound that somebody has open",
    r"No device request channel registered, blocked until released by user":
        "vfio-pci-core says so when a device is unbound whose user did not ask to be told",
    r"loading out-of-tree module taints kernel|module verification failed: signature":
        "every module that is not the distribution's own",
    r"clocksource: .*|hrtimer: interrupt took .*|perf: interrupt took too long|workqueue: .* hogged CPU for":
        "an emulated processor is slow, and others use the real one",
}
# While the GPU is not ready, on purpose.
ALLOWED_UNREADY = {
    r"GPU memory not ready within \d+ s": "the driver says why an access or a probe ended in ETIME",
    rf"{MODULE}.*probe .*failed with error -62|probe with driver {MODULE} failed with error -62":
        "the driver core repeats the probe's ETIME",
}


class Log:
    """The kernel's messages from now on."""

    def __init__(self) -> None:
        """Skip what is there."""
        self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._fd, 0, os.SEEK_END)

    def _records(self) -> list:
        records = []
        while True:
            try:
                records.append(os.read(self._fd, 8192).decode(errors="replace"))
            except BlockingIOError:
                return records
            except BrokenPipeError:
                records.append("4,0,0,-;messages were lost before they could be looked at")

    def complaints(self) -> list:
        """Return the new messages of level warning and above."""
        lines = []
        for record in self._records():
            prefix, _, text = record.partition(";")
            if int(prefix.split(",")[0]) & 7 <= WARNING_LEVEL:
                lines.append(text.splitlines()[0])
        return lines


def unexpected(lines: list, allowed: Mapping[str, str]) -> list:
    """Return the messages that no pattern allows."""
    return [line for line in lines if not any(re.search(pattern, line) for pattern in allowed)]


def settle() -> None:
    """Have the kernel give back what it only keeps: caches, and objects that a processor has at hand."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")
    time.sleep(SETTLE)
    for cache in Path("/sys/kernel/slab").iterdir():
        if not cache.is_symlink():
            (cache / "shrink").write_text("1", encoding="ascii")


def slab_objects() -> dict:
    """Return how many objects each cache has given out."""
    settle()
    lines = Path("/proc/slabinfo").read_text(encoding="ascii").splitlines()[2:]
    return {words[0]: int(words[1]) for words in (line.split() for line in lines)}


def grown(before: dict, middle: dict, after: dict, least: int) -> list:
    """Return the caches that grew by at least that many objects in each of two equal parts of a test."""
    result = []
    for cache, count in after.items():
        first = middle.get(cache, 0) - before.get(cache, 0)
        second = count - middle.get(cache, 0)
        if min(first, second) >= least and not (FILE_SYSTEMS.fullmatch(cache) or DEBUGGING.fullmatch(cache)):
            result.append(f"slab cache {cache} grew by {first} and {second} objects")
    return result


def references() -> int:
    """Return how many references the module has."""
    return int(Path(f"/sys/module/{MODULE}/refcnt").read_text(encoding="ascii"))


def remains() -> list:
    """Return what the driver has left although nobody has the device open."""
    found = [f"kernel mapping left: {line.strip()}" for line in kernel_mappings()]
    if references():
        found.append(f"the module has {references()} references left")
    return found


def virtual_memory() -> int:
    """Return the sum of the kernel's own mappings, in bytes."""
    lines = Path("/proc/vmallocinfo").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines)
