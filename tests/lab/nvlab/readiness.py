# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""When a GPU is ready: a delay that every reset starts again, and the CXL register that later GPUs show it in."""

from __future__ import annotations

import math
from collections.abc import Callable

# Range 1 Size Low of the CXL Device DVSEC (CXL 3.1, 8.1.3.8.2).
MEMORY_INFO_VALID, MEMORY_ACTIVE = 0x1, 0x2
TIMEOUT_SHIFT, TIMEOUT_CODES = 13, 8  # 1, 4, 16, 64 and 256 seconds; 5 to 7 are reserved
NO_ANSWER = 0xFFFFFFFF


class Delay:
    """Something that is over some seconds after the last reset. ``clock`` returns seconds and never goes back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seconds = 0.0
        self._over_at = 0.0

    def set(self, seconds: float) -> None:
        """Be over ``seconds`` from now and from every reset; math.inf is never."""
        self._seconds = seconds
        self.restart()

    def restart(self) -> None:
        """Begin anew, as a reset does."""
        self._over_at = self._clock() + self._seconds

    def over(self) -> bool:
        """Return whether it is over now."""
        return self._clock() >= self._over_at

    def remaining(self) -> float | None:
        """Return the seconds until it is over, or None for never."""
        wait = max(0.0, self._over_at - self._clock())
        return None if math.isinf(wait) else round(wait, 3)


class CxlStatus:
    """The dword that tells whether the memory of a function with a CXL Device DVSEC is ready."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.info = Delay(clock)
        self.timeout_code = 0
        self.answers = True

    def dword(self, active: bool) -> int:
        """Return the register; nothing in it means anything before the information is valid, so it is 0 until then."""
        if not self.answers:
            return NO_ANSWER
        if not self.info.over():
            return 0
        return MEMORY_INFO_VALID | (MEMORY_ACTIVE if active else 0) | self.timeout_code << TIMEOUT_SHIFT

    def describe(self) -> dict[str, object]:
        """Return the state for the control socket; times in seconds."""
        return {"info_valid": self.info.over(), "info_valid_in": self.info.remaining(),
                "timeout_code": self.timeout_code, "answers": self.answers}
