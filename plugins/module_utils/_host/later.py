# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets programs of the host run while files are read: most of the time of host_info is waiting for them."""

from __future__ import annotations

import threading
from typing import Any, Callable, Generic, TypeVar

T = TypeVar("T")


class Later(Generic[T]):
    """Starts a function in a thread of its own. ``get`` waits for what it returns, and raises what it raises."""

    def __init__(self, function: Callable[..., T], *arguments: Any) -> None:
        self._outcome: list[T] = []
        self._error: list[BaseException] = []
        self._thread = threading.Thread(target=self._work, args=(function, arguments), daemon=True)
        self._thread.start()

    def _work(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> None:
        try:
            self._outcome.append(function(*arguments))
        except BaseException as error:  # raised again where the result is asked for
            self._error.append(error)

    def get(self) -> T:
        self._thread.join()
        if self._error:
            raise self._error[0]
        return self._outcome[0]
