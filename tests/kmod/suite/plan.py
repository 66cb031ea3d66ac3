# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Which tests run on which host, with the GPU and the driver in which state. Data, and the choice among it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .driver import Driver
from .host import Facts

READY_AFTER = 6
LAYOUT_TESTS = {"gh200-120gb": "Gh200With120Gb", "gh200-480gb": "Gh200With480Gb", "gh200-144gb": "Gh200With144Gb",
                "gb200": "Gb200", "gb300": "Gb300", "vera-cxl": "VeraCxl"}


@dataclass(frozen=True)
class Phase:
    """Tests that share a state: the driver is loaded with ``layout``, the GPU is bound and then told ``gpu``."""

    name: str
    tests: tuple[str, ...]
    layout: str = "mainline"
    gpu: tuple[str, ...] = ()
    bound: bool = True


ACCESS = ("test_regions", "test_access", "test_mmap", "test_caching", "test_config")
READY = Phase("ready", (*ACCESS, "test_power", "test_locking", "test_poison", "test_lifetime", "test_names",
                        "test_source"))
BAR2 = Phase("bar2", ("test_layout.Bar2", *ACCESS), layout="bar2")
SLOW = Phase("slow", ("test_waiting",), gpu=(f"ready-after {READY_AFTER}",))
DEAD = Phase("dead", ("test_never_ready",), gpu=("not-ready",))
FALLBACK = Phase("fallback", ("test_fallback",))
LOG = Phase("log", ("test_log",))
# One that make test starts, and one on which both regions have a hole. What waits is the same for the other products.
FULL = ("gh200-120gb", "gh200-480gb")
# Last, and each on its own: a driver that lets a private mapping be touched takes the kernel down with it.
PRIVATE = tuple(Phase("private", (f"test_private.Private.{test}",)) for test in ("test_pages", "test_huge_pages"))
# Time-out code 1 is 4 s, 2 is 16 s.
CXL = (Phase("cxl-late", ("test_cxl.Late",), gpu=("timeout-code 2", f"ready-after {READY_AFTER}")),
       Phase("cxl-never-active", ("test_cxl.NeverActive",), gpu=("timeout-code 1", "not-ready")),
       Phase("cxl-never-valid", ("test_cxl.NeverValid",), gpu=("timeout-code 3", "info-invalid")),
       Phase("cxl-silent", ("test_cxl.Silent",), gpu=("silent",)))
REFUSED = {"range-in-ram": "test_refused.SystemRam", "range-wraps": "test_refused.Wrapping",
           "range-unreachable": "test_refused.Unreachable", "base-in-page": "test_refused.BaseInPage"}


def phases(facts: Facts, driver: Driver) -> list[Phase]:
    """Return what runs on a host with a driver, in order. Only this project's driver has another layout."""
    faults = {fault.partition("=")[0] for fault in facts.faults}
    if faults & {"no-properties", "size-zero"}:
        return [FALLBACK, LOG]
    refused = sorted(REFUSED[fault] for fault in faults & REFUSED.keys())
    if refused:
        return [Phase("refused", tuple(refused), bound=False), replace(LOG, bound=False)]
    layout = f"test_layout.{LAYOUT_TESTS[facts.product]}"
    ready = replace(READY, tests=(layout, *READY.tests))
    if "odd-size" in faults:
        return [replace(READY, tests=("test_odd_size", *READY.tests)), LOG]
    if facts.product == "vera-cxl":
        return [ready, *CXL, LOG]
    if facts.product not in FULL:
        return [ready, *([BAR2] if driver.ours else []), LOG]
    return [ready, SLOW, DEAD, *([BAR2] if driver.ours else []), LOG, *PRIVATE]
