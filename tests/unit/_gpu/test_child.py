# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work in a forked child: results, errors, signals, time."""

from __future__ import annotations

import faulthandler
import os
import signal
import time

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.child import (
    ChildKilledError,
    ChildTimeoutError,
    run_in_child,
)


def fail(error: Exception) -> None:
    raise error


def test_the_value_comes_back_from_another_process() -> None:
    pid, data = run_in_child(lambda: (os.getpid(), b"x" * 200_000), 5, "Work")
    assert pid != os.getpid()
    assert len(data) == 200_000


def test_errors_pass_through() -> None:
    with pytest.raises(PassthroughError) as caught:
        run_in_child(lambda: fail(PassthroughError("Refused.", address="a")), 5, "Work")
    assert (caught.value.message, caught.value.details) == ("Refused.", {"address": "a"})
    with pytest.raises(OSError) as refused:
        run_in_child(lambda: fail(OSError(16, "busy")), 5, "Work")
    assert refused.value.errno == 16
    with pytest.raises(PassthroughError, match="ValueError in a child process: fault"):
        run_in_child(lambda: fail(ValueError("fault")), 5, "Work")


def bus_error() -> None:
    faulthandler.disable()  # pytest's own, whose report would look like a failure
    os.kill(os.getpid(), signal.SIGBUS)


def test_a_signal_is_told() -> None:
    with pytest.raises(ChildKilledError, match="Work was ended by SIGBUS") as caught:
        run_in_child(bus_error, 5, "Work")
    assert caught.value.details == {"signal": signal.SIGBUS}


def test_an_exit_without_a_result_is_told() -> None:
    with pytest.raises(PassthroughError, match=r"ended without a result \(status 3\)"):
        run_in_child(lambda: os._exit(3), 5, "Work")


def test_time_is_bounded_and_grandchildren_end_too(tmp_path: object) -> None:
    mark = f"{tmp_path}/alive"

    def grandchild() -> None:
        time.sleep(2)
        with open(mark, "w", encoding="ascii"):
            pass

    start = time.monotonic()
    with pytest.raises(ChildTimeoutError, match="Work did not end within 1 seconds and was given up"):
        run_in_child(lambda: run_in_child(grandchild, 60, "Inner"), 1, "Work")
    assert time.monotonic() - start < 2
    time.sleep(1.5)
    assert not os.path.exists(mark)


def test_inner_time_is_bounded_too() -> None:
    with pytest.raises(ChildTimeoutError, match="Inner did not end within 1 seconds"):
        run_in_child(lambda: run_in_child(lambda: time.sleep(9), 1, "Inner"), 8, "Work")
