# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions that run while others do."""

from __future__ import annotations

import threading

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.later import Later


def test_both_run_at_once_and_give_their_results():
    meeting = threading.Barrier(2, timeout=10)
    one, other = Later(meeting.wait), Later(meeting.wait)
    assert {one.get(), other.get()} == {0, 1}
    assert Later(divmod, 7, 2).get() == (3, 1)


def test_errors_are_raised_where_the_result_is_asked_for():
    later = Later(int, "x")
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            later.get()
