# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Processes that use a device at the same time, two threads each, so that they share locks of the device and of mm."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Mapping
from typing import Callable, Optional

import vfio_client as vfio
from hostside import ADDRESS
from stress_board import KILLED, OK, OTHER, STUCK, Board
from stress_ops import TOUCHING, OpenDevice, User, WrongDataError

THREADS = 2
PROCESSES = 4
USERS = THREADS * PROCESSES
# An operation may rightly wait 30 s for a GPU that does not become ready, and a second one for the first.
PATIENCE = 90.0
# A killed process that is still there after this time hangs in the kernel.
KILL_LIMIT = 30.0
POLL = 0.05


def spawn(work: Callable[[], None]) -> int:
    """Run something in a child that is not cleaned up after; return its process id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        # A fault that the kernel cannot serve has to end the process, not Python's handler of it.
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        work()
    except BaseException:  # the status says so
        os._exit(1)
    os._exit(0)


def reap(pid: int, seconds: float) -> Optional[int]:
    """Return the wait status of a child, None if it has not ended after that time."""
    limit = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        if time.monotonic() > limit:
            return None
        time.sleep(POLL)


class Crew:
    """Users of one open device, in processes that are replaced when a signal ends them."""

    def __init__(self, board: Board, device: vfio.Device, mix: Mapping[str, int]) -> None:
        """Start the processes. Nobody else of this process may wait for children meanwhile."""
        self._board = board
        self._device = device
        self._mix = mix
        self._first_user: dict = {}
        for process in range(PROCESSES):
            self._start(process * THREADS)

    def _start(self, first: int) -> None:
        self._first_user[spawn(lambda: self._work(first))] = first

    def _work(self, first: int) -> None:
        users = [User(self._board, first + number, self._device) for number in range(THREADS)]
        threads = [threading.Thread(target=user.work, args=(self._mix,)) for user in users]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _note_end(self, pid: int, status: int, replace: bool) -> None:
        first = self._first_user.pop(pid)
        places = range(first, first + THREADS)
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            outcome = KILLED if number == signal.SIGKILL else signal.Signals(number).name
            touching = [user for user in places if self._board.doing(user) in TOUCHING]
            # Only the thread that touched is to blame; the other one was ended with it.
            for user in touching[:1] if number == signal.SIGBUS and touching else places:
                self._board.end(user, outcome)
        elif status:
            self._board.begin(first, next(iter(self._mix)))
            self._board.end(first, OTHER)
        if replace:
            self._start(first)

    def tend(self, seconds: float) -> None:
        """Let them work for that time."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid:
                self._note_end(pid, status, replace=True)
            else:
                time.sleep(POLL)

    def end(self, patience: float) -> None:
        """Have them end by themselves, and kill those that have not after that time."""
        self._board.stop()
        self._reap_all(patience)
        for pid in self._first_user:
            os.kill(pid, signal.SIGKILL)
        self._reap_all(KILL_LIMIT)
        for first in self._first_user.values():
            self._board.end(first, STUCK)

    def _reap_all(self, seconds: float) -> None:
        limit = time.monotonic() + seconds
        for pid in tuple(self._first_user):
            status = reap(pid, max(0.0, limit - time.monotonic()))
            if status is not None:
                self._note_end(pid, status, replace=False)


def contend(board: Board, user: int) -> None:
    """Open the device again and again, against others who do the same; use it whenever it was got."""
    while not board.stopped():
        board.begin(user, "open")
        try:
            with OpenDevice(ADDRESS) as device:
                board.end(user, OK)
                board.begin(user, "use")
                use_briefly(device, user)
                board.end(user, OK)
        except OSError as error:
            board.end(user, errno.errorcode.get(error.errno or 0, OTHER))
            time.sleep(POLL / 10)
        except WrongDataError:
            board.end(user, "wrong data")


def use_briefly(device: vfio.Device, user: int) -> None:
    """Write and read one's own part of the memory. Raises WrongDataError."""
    single = Board(user + 1, ("read", "write"))
    me = User(single, user, device)
    for operation in ("write", "read"):
        me.once(operation)
    bad = [key for key in single.counts() if key[1] != OK]
    if bad:
        raise WrongDataError(f"{bad[0][0]}: {bad[0][1]}")
