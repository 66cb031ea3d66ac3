# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every module's ``main()`` shares: the lock, root, the error family, the diff."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable

from ansible.module_utils.basic import AnsibleModule

from .errors import PassthroughError
from .host import Host
from .journal import sweep_state

if TYPE_CHECKING:  # modules that only read have no plan, and pay for none
    from .plan import Plan

# Not in /run/lock, where everybody may put a file of this name and keep it locked.
LOCK_FILE = "/run/nvgrace-passthrough.lock"
LOCK_SECONDS = 120
_POLL_SECONDS = 0.2


@contextlib.contextmanager
def host_lock(host: Host, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Lets one run at a time change this host; waits up to ``seconds``, then refuses and names the other one.

    What a run that was killed has left in the state directory is removed first: nobody else writes there now.
    """
    real = host.path(LOCK_FILE)
    os.makedirs(os.path.dirname(real), exist_ok=True)
    handle = os.open(real, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() >= deadline:
                    owner = os.pread(handle, 20, 0).decode("ascii", "replace").strip() or "unknown"
                    raise PassthroughError(f"Another run of nvgrace.passthrough (process {owner}) has held {LOCK_FILE} "
                                           f"for {seconds:.0f} seconds: wait for it, then run again.") from error
                time.sleep(_POLL_SECONDS)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        try:
            sweep_state(host)
            yield
        finally:
            # A child that is stuck in the kernel has the descriptor, too; closing ours would leave the lock with it.
            fcntl.flock(handle, fcntl.LOCK_UN)
    finally:
        os.close(handle)


def require_root() -> None:
    """Raises PassthroughError for everyone but root."""
    if os.geteuid() != 0:
        raise PassthroughError("This module must run as root: set become: true.")


def diff_of(before: Any, after: Any) -> dict[str, str]:
    """The two sides of a module's diff as readable text."""
    return {"before": _pretty(before), "after": _pretty(after)}


def _pretty(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, indent=2, sort_keys=True, default=str) + "\n"


def plan_result(plan: Plan, actions: list[str]) -> dict[str, Any]:
    """The part of a result that every module with a plan returns. ``actions`` are planned ones in check mode."""
    return {"changed": plan.changed, "actions": actions, "diff": diff_of(plan.before, plan.after)}


def run_module(module: AnsibleModule, work: Callable[[AnsibleModule, Host], dict[str, Any]],
               needs_root: bool = True, locked: bool = True, lock_seconds: float = LOCK_SECONDS) -> None:
    """Runs ``work`` and ends the module: its result, or one sentence of failure.

    ``locked`` is for modules that may change the host; check mode takes no lock because it changes nothing.
    ``lock_seconds`` is how long to wait for another run on this host. The result has ``elapsed``: the seconds of
    ``work`` by this host's steady clock, without the connection, Python's start and the wait for the lock.
    """
    host = Host()

    def timed() -> dict[str, Any]:
        started = time.monotonic()
        result = work(module, host)
        return {**result, "elapsed": round(time.monotonic() - started, 3)}

    try:
        if needs_root:
            require_root()
        if locked and not module.check_mode:
            with host_lock(host, lock_seconds):
                result = timed()
        else:
            result = timed()
    except PassthroughError as error:
        module.fail_json(msg=error.message, **error.details)
    else:
        module.exit_json(**result)
