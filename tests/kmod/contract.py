# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""What the kernel module promises, row by row, and the decorator by which a test says which rows it proves.

Every row needs a test; tests/unit/kmod fails otherwise. ``tests/kmod/rows`` prints the table from row to tests.
Imported on the emulated host and on the controller, so: Python 3.9, nothing but the standard library.
"""

from __future__ import annotations

import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, TypeVar

Tested = TypeVar("Tested")

# An emulated region's behaviour: what each kind of access gives.
BEHAVIOUR = {
    "behaviour-region-info": "GET_REGION_INFO: size reported, READ|WRITE|MMAP|CAPS, one sparse area {0, actual}",
    "behaviour-beyond": "read or write at or after the reported size is EINVAL",
    "behaviour-clip": "a count that ends after the reported size is clipped to it",
    "behaviour-hole": "bytes from actual to reported read as 0xff, writes are dropped, both count as done",
    "behaviour-position": "the position advances by what was returned and stays on EFAULT",
    "behaviour-mmap": "[0, actual) maps; past actual and MAP_PRIVATE are EINVAL, overflow is EOVERFLOW",
    "behaviour-config-read": "a config read of any width shows every emulated BAR in its range",
    "behaviour-config-write": "a config write stores every emulated BAR, passes on the rest, returns the count",
    "behaviour-bar-value": "BARs read (stored & ~(reported-1)) | 0xc; stored = 0 at open and VFIO_DEVICE_RESET",
    "behaviour-ioeventfd": "VFIO_DEVICE_IOEVENTFD is ENOTTY",
    "behaviour-fallback": "no properties, or size 0: plain vfio-pci, a warning, a verifier can tell",
    "behaviour-first-read": "concurrent first reads make one kernel mapping, and none is left after close",
    "behaviour-fault": "mappings come by faults of 2 MiB (1 GiB where the architecture can), not at mmap",
    "behaviour-caching": "usemem is cacheable, resmem write-combined",
    "behaviour-ready-legacy": "probe and first access after a reset wait for BAR0: 30 s, killable, ETIME",
    "behaviour-ready-cxl": "with a CXL Device DVSEC: valid in 1 s, active in 1 to 256 s, all-ones ENODEV",
    "behaviour-ready-lock": "the wait holds no lock that others need",
    "behaviour-open-resets": "every first open counts as a reset",
    "behaviour-poison": "a memory failure is SIGBUS for who maps it; ranges are registered while open only",
    "behaviour-power": "low power: a touch is SIGBUS, read and write wake the function; then all works again",
    "behaviour-feature": "VFIO_DEVICE_FEATURE is that of vfio-pci-core; no dma-buf of an emulated region",
}

# What the kernel's own driver of 7.3.4 gets wrong, in the order of the list.
MAINLINE = {
    "mainline-1": "config accesses that span several BARs are whole",
    "mainline-2": "MAP_PRIVATE is refused instead of killing the kernel at the first touch",
    "mainline-3": "reading the hole is no dearer than reading memory",
    "mainline-4": "accesses across the actual size of resmem are whole, and so are vectors",
    "mainline-5": "PCI_COMMAND and VFIO_DEVICE_RESET go on while a reader waits; the hole never waits",
    "mainline-6": "user memory is never touched with memory_lock held",
    "mainline-7": "the fallback says so in the kernel log",
    "mainline-8": "a size of no whole pages: the sparse area maps whole, read and write reach the rest",
    "mainline-9": "resmem is read and written nearly as fast as usemem",
    "mainline-10": "mappings survive a reset; a fallback device does no harm; a time-out fails the probe",
    "mainline-11": "it builds on more than one kernel",
}

# What it does well and has to be matched.
MATCH = {
    "match-mappings": "mappings survive reset, FLR and decoding off and on",
    "match-kill": "SIGKILL ends a wait at once",
    "match-unbind": "unbind while open waits, and completes when the holder dies",
    "match-cycles": "50 bind cycles are clean",
    "match-touch": "the first touch of an aligned 1 GiB takes 512 faults",
}

# The review of patch v10.
REVIEW = {
    "review-1": "userspace learns the actual size from one sparse area",
    "review-2": "the device can be used without a virtual machine",
    "review-3": "actual maps; actual + a page and reported do not",
    "review-4": "beyond reported EINVAL, beyond actual ~0, across reported truncated",
    "review-5": "a read beyond actual returns the count in 0xff; across actual it is data, then 0xff",
    "review-6": "no comment says that a read of BAR2 implies anything out of scope",
    "review-7": "read and write share the one helper that maps memory, under a lock",
    "review-8": "comments say what the code does",
    "review-9": "a dropped write returns its count and changes nothing",
    "review-10": "the position advances: vectors, successive reads, EFAULT",
    "review-11": "there is no attribute coherent_mem",
}

# Region layouts, names, and what is refused.
LAYOUT = {
    "layout-gh200-120gb": "GH200 120GB: 2560 MiB are 1536 in a BAR4 of 2048, and 1024 in a BAR2 of 1024",
    "layout-gh200-480gb": "GH200 480GB: 2816 MiB are 1536 in a BAR4 of 2048, and 1280 in a BAR2 of 2048",
    "layout-gh200-144gb": "GH200 144GB: 3328 MiB are 2048 in a BAR4 of 4096 (as before rounding), and 1280 in 2048",
    "layout-gb200": "GB200: 1280 MiB in a BAR4 of 2048; BAR2 is the physical one",
    "layout-gb300": "GB300: 1792 MiB in a BAR4 of 2048; BAR2 is the physical one",
    "layout-bar2": "layout=bar2: the whole memory as region 2, cacheable; region 4 is the physical BAR",
    "layout-parameter": "layout can be read in sysfs, not written; an unknown one is refused",
    "names-sysfs": "the driver directory has underscores, whatever the file's name",
    "names-alias": "all ids are override-only: vfio_pci aliases, nothing binds by itself",
    "names-any-id": "the id table is no gate: driver_override is enough",
    "refuse-ram": "memory that overlaps System RAM is refused with EINVAL and a message",
    "refuse-wrap": "a range that wraps is refused with EINVAL and a message",
    "refuse-unreachable": "memory after the processor's last address is refused with EINVAL and a message",
    "refuse-page": "a base inside of a page is refused with EINVAL and a message",
}

ROWS = {**BEHAVIOUR, **MAINLINE, **MATCH, **REVIEW, **LAYOUT}


def contract(*rows: str) -> Callable[[Tested], Tested]:
    """Tag a test with the rows that it proves. Raises KeyError for a row that does not exist."""
    for row in rows:
        ROWS[row]  # a misspelt row must not pass

    def tag(test: Tested) -> Tested:
        test.contract_rows = rows  # type: ignore[attr-defined]
        return test

    return tag


def ours_only(reason: str) -> Callable[[Tested], Tested]:
    """Mark a test that asks for what only this project's driver has; for another driver it is skipped."""

    def tag(test: Tested) -> Tested:
        test.ours_only = reason  # type: ignore[attr-defined]
        return test

    return tag


def rows_of(test: unittest.TestCase) -> tuple:
    """Return the rows that a test proves."""
    # A class or module that failed to set up stands in for its tests, and has no method.
    method = getattr(test, getattr(test, "_testMethodName", ""), None)
    return getattr(method, "contract_rows", ())


def tests_in(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """Yield the tests of a suite in order."""
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from tests_in(item)
        else:
            yield item


def all_tests() -> list:
    """Return every test of the suite. Its directory has to be importable."""
    names = sorted(path.stem for path in Path(__file__).resolve().parent.glob("test_*.py"))
    return list(tests_in(unittest.TestLoader().loadTestsFromNames(names)))


def tests_by_row(elsewhere: dict) -> dict:
    """Return the ids of the tests that prove each row; ``elsewhere`` has the rows of tests that are no unittest."""
    table: dict = {row: [] for row in ROWS}
    for test in all_tests():
        for row in rows_of(test):
            table[row].append(test.id())
    for test, rows in elsewhere.items():
        for row in rows:
            table[row].append(test)
    return table
