# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a function in a forked child: what can block for ever in the kernel, or die by a signal, must not take the
module with it."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import time
from typing import Any, Callable, TypeVar

from .._core.errors import PassthroughError

_T = TypeVar("_T")

# How often somebody who watches hears that the child is not done.
WAITING_SECONDS = 15.0

# After SIGKILL a process that is not stuck in the kernel is gone within moments.
_KILL_SECONDS = 2.0

# A child may run children of its own, which stay in its process group, so that a time-out ends them all.
_nested = False


class ChildTimeoutError(PassthroughError):
    """The function did not end in time; ``details["stuck_pid"]`` is there where not even SIGKILL ended it."""


class ChildKilledError(PassthroughError):
    """A signal ended the child; its number is ``details["signal"]``."""


def run_in_child(function: Callable[[], _T], timeout: float, what: str,
                 waiting: Callable[[float], None] = lambda _elapsed: None) -> _T:
    """What ``function`` returns, from a child process that gets at most ``timeout`` seconds.

    ``what`` names the work in messages; ``waiting`` is called every WAITING_SECONDS with the seconds so far.
    PassthroughError and OSError pass through as they were raised; the value must be picklable.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(function, writer)
    if not _nested:
        with contextlib.suppress(OSError):  # the child does the same; the first of the two wins
            os.setpgid(pid, pid)
    os.close(writer)
    try:
        data = _read_all(reader, timeout, waiting)
    finally:
        os.close(reader)
    if data is None:
        raise _timed_out(pid, timeout, what)
    _pid, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        raise ChildKilledError(f"{what} was ended by {signal.Signals(number).name}.", signal=number)
    if not data:
        raise PassthroughError(f"{what} ended without a result (status {os.WEXITSTATUS(status)}).")
    value, error = pickle.loads(data)
    if error is not None:
        raise error
    result: _T = value
    return result


def _child(function: Callable[[], Any], writer: int) -> None:
    """Never returns: os._exit keeps the parent's buffers and exit handlers out of the child."""
    global _nested
    status = 1
    try:
        if not _nested:
            os.setpgid(0, 0)
        _nested = True
        try:
            outcome: tuple[Any, Any] = (function(), None)
        except PassthroughError as error:
            outcome = (None, error)
        except OSError as error:
            outcome = (None, OSError(error.errno, error.strerror))
        except Exception as error:  # a fault of ours: without this its text would be lost with the child
            outcome = (None, PassthroughError(f"{type(error).__name__} in a child process: {error}."))
        with os.fdopen(writer, "wb") as stream:
            stream.write(pickle.dumps(outcome))
        status = 0
    finally:
        os._exit(status)


def _read_all(reader: int, timeout: float, waiting: Callable[[float], None]) -> Any:
    """Everything until the child closes its end; None when time is up."""
    started = time.monotonic()
    deadline = started + timeout
    chunks: list[bytes] = []
    while True:
        left = max(0.0, deadline - time.monotonic())
        ready, _writable, _errors = select.select([reader], [], [], min(left, WAITING_SECONDS))
        if not ready:
            if time.monotonic() >= deadline:
                return None
            waiting(time.monotonic() - started)
            continue
        chunk = os.read(reader, 65536)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)


def _timed_out(pid: int, timeout: float, what: str) -> ChildTimeoutError:
    with contextlib.suppress(ProcessLookupError):
        if _nested:
            os.kill(pid, signal.SIGKILL)
        else:
            os.killpg(pid, signal.SIGKILL)
    deadline = time.monotonic() + _KILL_SECONDS
    while time.monotonic() < deadline:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return ChildTimeoutError(f"{what} did not end within {timeout:.0f} seconds and was given up.")
        time.sleep(0.05)
    return ChildTimeoutError(f"{what} did not end within {timeout:.0f} seconds and is still blocked in the kernel as "
                             f"process {pid}: end what uses the device, or reboot.", stuck_pid=pid)
