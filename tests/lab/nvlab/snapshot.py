# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Saving a running host and bringing it back, also after its kernel has crashed.

QEMU saves the machine with its memory into the disk's overlay (savevm). A GPU is a process of its own whose registers
are not in there: the host lets go of its functions before, and finds them anew, as after a reset, when it comes back.
"""

from __future__ import annotations

import dataclasses
import time

from . import lifecycle, qmp, state
from .cache import Cache
from .emulator import provide_emulator
from .errors import LabError, UsageError
from .processes import end
from .products import all_functions
from .state import DEAD, RUNNING, Lab
from .steps import last_line, step

TAG = "nvgrace"
SAVE_TIMEOUT = 300.0  # seconds; one is normal, and a GPU memory full of data takes as long as the disk
RESUME_TIMEOUT = 300.0
FIND_GPUS = "echo 1 > /sys/bus/pci/rescan\n"


def release_script(addresses: list[str]) -> str:
    """Return the shell script that takes the functions out of the host; a function with a driver makes it fail."""
    return f"""cd /sys/bus/pci/devices
for gpu in {' '.join(addresses)}; do
    test ! -e $gpu/driver || {{ echo "$gpu is bound to $(basename "$(readlink $gpu/driver)")" >&2; exit 3; }}
done
for gpu in {' '.join(addresses)}; do
    test ! -e $gpu || echo 1 > $gpu/remove
done
sync
"""


def resume_script(now: float) -> str:
    """Return the shell script of a host that comes back: its clock stood still, and it has no GPU."""
    return f"date -s @{now:.3f} > /dev/null\n{FIND_GPUS}"


def _save(lab: Lab) -> None:
    qmp.execute(lab.files.qmp, "stop")
    try:
        answer = qmp.execute(lab.files.qmp, "human-monitor-command", {"command-line": f"savevm {TAG}"}, SAVE_TIMEOUT)
    finally:
        qmp.execute(lab.files.qmp, "cont")
    if answer:
        raise LabError(f"QEMU refuses the snapshot: {str(answer).strip()}")


def take(cache: Cache, name: str) -> None:
    """Save a running host, in place of an earlier snapshot. It goes on afterwards, its GPUs found anew.

    Raises UsageError when the host is not made for it or a GPU has a driver.
    """
    lab = state.require_running(cache, name)
    if not lab.spec.snapshots:
        raise UsageError(f"The lab {name!r} cannot be saved; start it with --snapshots.")
    session = lifecycle.login(cache, lab)
    with step(f"save {name}"):
        try:
            session.run(release_script([function.address for function in all_functions(lab.spec.gpus)]))
        except LabError as error:
            if "is bound to" not in str(error):
                raise
            raise UsageError(f"A snapshot needs GPUs without a driver; unbind them first ({error}).") from error
        try:
            _save(lab)
        finally:
            session.run(FIND_GPUS)
        state.save(dataclasses.replace(lab, snapshot=True))


def rollback(cache: Cache, name: str) -> None:
    """Bring a host back to its snapshot, whatever has become of it. Raises UsageError when there is no snapshot.

    The GPUs are as at the start: their readiness is that of the host's faults. When it fails, it can be tried again.
    """
    lab = state.require(cache, name)
    if not lab.snapshot or lab.state() not in (RUNNING, DEAD):
        raise UsageError(f"The lab {name!r} has no snapshot to go back to; 'lab snapshot {name}' takes one.")
    with step(f"bring {name} back"):
        end(list(lab.processes.values()))
        try:
            lab = lifecycle.relaunch(lab, provide_emulator(cache), TAG)
            session = lifecycle.login(cache, lab)
            session.wait_for_banner(RESUME_TIMEOUT, lambda: lab.state() != DEAD)
            session.run(resume_script(time.time()))
        except BaseException as error:
            current = state.require(cache, name)
            end(list(current.processes.values()))
            if isinstance(error, LabError):
                raise LabError(f"{error} qemu: {last_line(current.files.qemu_log) or '(nothing)'}") from error
            raise
