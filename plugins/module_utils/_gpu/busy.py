# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Refuses to touch what somebody uses, or waits for it to become free."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from .._core.errors import PassthroughError
from .._core.host import Host
from .holders import UsageReader, persistence_mode
from .model import PciFunction
from .numa import generic_initiator_nodes
from .options import DriverOptions

_POLL_SECONDS = 1.0


def require_free(host: Host, functions: Sequence[PciFunction], options: DriverOptions) -> None:
    """Raises PassthroughError where somebody uses one of ``functions`` and does not stop in time."""
    if not functions:
        return
    deadline = time.monotonic() + (options.timeout if options.wait and not options.check_mode else 0)
    initiators = generic_initiator_nodes(host)
    while True:
        reader = UsageReader(host)
        usages = {function.address: replace(reader.usage(function, initiators.get(function.address, ())),
                                            persistence_mode=persistence_mode(host, function))
                  for function in functions}
        busy = {address: usage for address, usage in usages.items() if usage.busy}
        if not busy:
            return
        if time.monotonic() >= deadline:
            break
        time.sleep(_POLL_SECONDS)
    waited = f" after {options.timeout:.0f} seconds" if options.wait and not options.check_mode else ""
    text = "; ".join(f"{address}: {', '.join(usage.reasons())}" for address, usage in busy.items())
    raise PassthroughError(f"In use{waited}: {text}. End that first; nothing was changed.", in_use=sorted(busy))
