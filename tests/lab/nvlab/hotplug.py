# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Taking a card out of a running host and putting it in again: the hotplug of the root port that it is behind."""

from __future__ import annotations

import time

from . import qmp
from .argv import function_device
from .errors import LabError, UsageError
from .products import Gpu, all_functions
from .state import Lab

VANISH, ADD = "vanish", "add"
REQUESTS = (VANISH, ADD)
# The slot blinks for five seconds before the kernel lets go, and a driver that is in use holds it for ever.
TIMEOUT = 60.0


def _names(lab: Lab) -> set[str]:
    answer = qmp.execute(lab.files.qmp, "qom-list", {"path": "/machine/peripheral"})
    if not isinstance(answer, list):
        raise LabError(f"QEMU lists its devices in an unknown form: {answer!r}")
    return {str(item["name"]) for item in answer}


def plugged(lab: Lab, gpu: Gpu) -> bool:
    """Return whether the card is in the host."""
    return gpu.name in _names(lab)


def carry_out(lab: Lab, gpu: Gpu, request: str) -> None:
    """Take the card out, which the host's kernel has to agree to, or put it in.

    Raises UsageError when that cannot be, LabError when the kernel does not let go of it.
    """
    if not lab.spec.hotplug:
        raise UsageError(f"The GPUs of {lab.spec.name!r} are in no hotplug slot; start it with --hotplug.")
    if plugged(lab, gpu) == (request == ADD):
        raise UsageError(f"GPU {gpu.index} of {lab.spec.name!r} is {'in' if request == ADD else 'out of'} its slot "
                         "already.")
    if request == ADD:
        # The first function last: with it the slot is occupied, and the kernel looks for all of them.
        for function in reversed(all_functions([gpu])):
            qmp.execute(lab.files.qmp, "device_add", function_device(lab.spec, function, lab.files))
        return
    qmp.execute(lab.files.qmp, "device_del", {"id": gpu.name})
    names = {function.name for function in all_functions([gpu])}
    deadline = time.monotonic() + TIMEOUT
    while names & _names(lab):
        if time.monotonic() > deadline:
            raise LabError(f"The host has not let go of GPU {gpu.index} within {TIMEOUT:.0f} s; is its driver in use?")
        time.sleep(0.5)
