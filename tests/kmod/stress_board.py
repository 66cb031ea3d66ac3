# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""What the users of a stressed device do and what came of it, in memory that processes share.

A user that is killed leaves its counts and the operation that it was in.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Sequence

OK = "ok"
WRONG = "wrong data"
STUCK = "stuck"
KILLED = "SIGKILL"
OTHER = "other"
OUTCOMES = (OK, WRONG, "ETIME", "EIO", "EINTR", "EFAULT", "EINVAL", "EAGAIN", "EBUSY", "ENOMEM", "ENODEV", "ENXIO",
            "SIGBUS", "SIGSEGV", KILLED, STUCK, OTHER)
IDLE = 0


class Board:
    """Counters for each user, operation and outcome, and what each user is doing."""

    def __init__(self, users: int, operations: Sequence[str]) -> None:
        """Start with nothing done."""
        self.operations = tuple(operations)
        self._row = len(self.operations) * len(OUTCOMES)
        self._counts = memoryview(mmap.mmap(-1, 8 * users * self._row)).cast("Q")
        self._doing = memoryview(mmap.mmap(-1, 8 * users)).cast("Q")
        self._stop = memoryview(mmap.mmap(-1, 8)).cast("Q")

    def stop(self) -> None:
        """Ask all users to end."""
        self._stop[0] = 1

    def stopped(self) -> bool:
        """Return whether the users have been asked to end."""
        return bool(self._stop[0])

    def begin(self, user: int, operation: str) -> None:
        """Note what a user does from now on."""
        self._doing[user] = 1 + self.operations.index(operation)

    def doing(self, user: int) -> str:
        """Return what a user does, an empty text for nothing."""
        return ("", *self.operations)[self._doing[user]]

    def end(self, user: int, outcome: str) -> None:
        """Count what came of what a user did."""
        if self._doing[user] == IDLE:
            return
        place = OUTCOMES.index(outcome if outcome in OUTCOMES else OTHER)
        self._counts[user * self._row + (self._doing[user] - 1) * len(OUTCOMES) + place] += 1
        self._doing[user] = IDLE

    def counts(self) -> Counter:
        """Return how often each (operation, outcome) was, over all users."""
        result: Counter = Counter()
        for place, count in enumerate(self._counts):
            if count:
                operation, outcome = divmod(place % self._row, len(OUTCOMES))
                result[self.operations[operation], OUTCOMES[outcome]] += count
        return result
