# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says something again and again while something else takes its time."""

from __future__ import annotations

import threading
import time
from typing import Callable


class Ticker:
    """Calls ``tell`` with the seconds so far, every ``interval`` seconds while the block runs."""

    def __init__(self, tell: Callable[[float], None], interval: float) -> None:
        self._tell = tell
        self._interval = interval
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Ticker:
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._done.set()
        self._thread.join()

    def _tick(self) -> None:
        while not self._done.wait(self._interval):
            self._tell(time.monotonic() - self._started)
