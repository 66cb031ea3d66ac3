# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The parts of the stress: each does its work for a time or a number of times and returns what came of it."""

from __future__ import annotations

import errno
import itertools
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from typing import Callable

from hostside import ADDRESS, DEVICE, DRIVER, EXPECTED, LAYOUT, MODULE, MODULE_FILE, OURS, in_thread, write_once
from stress_board import KILLED, OK, OTHER, STUCK, WRONG, Board
from stress_crew import KILL_LIMIT, PATIENCE, USERS, Crew, contend, reap, spawn
from stress_ops import MIX, OPERATIONS, PMD, OpenDevice, User, WrongDataError, check_works

ROUND = 10.0
READINESS_ROUND = 6.0
KILLABLE = ("read", "write", "touch", "fault", "hole", "config", "reset", "reopen")
# Within this time an unbind that does not wait would have ended.
UNBIND_WAITS = 1.0


def attempt(tally: Counter, operation: str, call: Callable[[], object]) -> bool:
    """Count what comes of a call; return whether it went well."""
    outcome = OK
    try:
        call()
    except OSError as error:
        outcome = errno.errorcode.get(error.errno or 0, OTHER)
    except WrongDataError:
        outcome = WRONG
    tally[operation, outcome] += 1
    return outcome == OK


def _rounds(seconds: float, mix: Mapping[str, int], patience: float = PATIENCE) -> Counter:
    """Open, use by a crew, close; again and again for that time."""
    tally: Counter = Counter()
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        board = Board(USERS, OPERATIONS)
        with OpenDevice(ADDRESS) as device:
            crew = Crew(board, device, mix)
            crew.tend(min(ROUND, limit - time.monotonic()))
            crew.end(patience)
        tally["open and close", OK] += 1
        tally += board.counts()
    return tally


def mixed(seconds: float) -> Counter:
    """Eight users of all operations; memory decoding stays on, and nothing may fail."""
    return _rounds(seconds, MIX)


def decoding(seconds: float) -> Counter:
    """The same with PCI_COMMAND switching the memory off and on."""
    return _rounds(seconds, {**MIX, "decode": 6})


def host_resets(seconds: float) -> Counter:
    """The same with resets that do not come through VFIO; one through VFIO is EAGAIN while such a reset goes on."""
    return _rounds(seconds, {**MIX, "host_reset": 4})


def readiness(seconds: float) -> Counter:
    """The same while somebody outside changes whether and when the GPU becomes ready; binds among it."""
    tally: Counter = Counter()
    limit = time.monotonic() + seconds
    # Those that wait when a round is over are killed, but in every fourth round.
    patience = itertools.cycle((PATIENCE, 0.5, 0.5, 0.5))
    while time.monotonic() < limit:
        tally += _rounds(min(READINESS_ROUND, limit - time.monotonic()), MIX, next(patience))
        write_once(DRIVER + "/unbind", ADDRESS)
        while not attempt(tally, "bind", lambda: write_once(DRIVER + "/bind", ADDRESS)):
            pass
    return tally


def contended(seconds: float) -> Counter:
    """Eight processes that all want to open the device."""
    board = Board(USERS, ("open", "use"))
    pids = [spawn(lambda number=number: contend(board, number)) for number in range(USERS)]
    time.sleep(seconds)
    board.stop()
    for number, pid in enumerate(pids):
        status = reap(pid, KILL_LIMIT)
        if status != 0:
            board.begin(number, "use")
            board.end(number, STUCK if status is None else OTHER)
    return board.counts()


def _kill_in(board: Board, work: Callable[[], None], operation: str) -> None:
    """Kill a process at a random moment of doing something again and again."""
    pid = spawn(work)
    limit = time.monotonic() + KILL_LIMIT
    while not board.counts() and time.monotonic() < limit:
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.2))
    os.kill(pid, signal.SIGKILL)
    status = reap(pid, KILL_LIMIT)
    # Killed between two operations, it was in none and nothing is counted.
    board.end(0, KILLED if status == signal.SIGKILL else STUCK)


def _again(board: Board, device: object, operation: str) -> Callable[[], None]:
    user = User(board, 0, device)  # type: ignore[arg-type]
    return lambda: user.work({operation: 1})


def killed(times: int) -> Counter:
    """SIGKILL in the middle of each kind of operation; the device has to work afterwards."""
    tally: Counter = Counter()
    for operation in KILLABLE:
        with OpenDevice(ADDRESS) as device:
            for _ in range(times):
                board = Board(1, OPERATIONS)
                _kill_in(board, _again(board, device, operation), operation)
                tally += board.counts()
        attempt(tally, "check", check_works)
    for _ in range(times):
        board = Board(1, ("open", "use"))
        _kill_in(board, lambda board=board: contend(board, 0), "open")
        tally += board.counts()
        attempt(tally, "check", check_works)
    return tally


def cycles(times: int) -> Counter:
    """Unbind, bind, open and use."""
    tally: Counter = Counter()
    for _ in range(times):
        attempt(tally, "unbind", lambda: write_once(DRIVER + "/unbind", ADDRESS))
        attempt(tally, "bind", lambda: write_once(DRIVER + "/bind", ADDRESS))
        attempt(tally, "open and use", check_works)
    return tally


def _hold_device(told: int) -> None:
    with OpenDevice(ADDRESS) as device:
        device.read(min(EXPECTED), 0, 4096)
        os.write(told, b"x")
        signal.pause()


def _hold_mapping(told: int) -> None:
    device = OpenDevice(ADDRESS)
    mapping = device.map(max(EXPECTED), 0, PMD)
    mapping.write(0, b"x")
    device.close()
    os.write(told, b"x")
    signal.pause()


def _hold_busy(told: int) -> None:
    with OpenDevice(ADDRESS) as device:
        user = User(Board(1, OPERATIONS), 0, device)
        os.write(told, b"x")
        user.work(MIX)


HOLDERS = {"an open device": _hold_device, "a mapping alone": _hold_mapping, "a busy user": _hold_busy}


def _let_go(signum: int, frame: object) -> None:
    raise SystemExit


def _hold(hold: Callable[[int], None], told: int) -> None:
    signal.signal(signal.SIGTERM, _let_go)
    try:
        hold(told)
    except SystemExit:  # which closes what was open
        return


def _unbind_from(hold: Callable[[int], None], number: int) -> str:
    """Unbind under a holder, have the holder end by that signal; return what came of it."""
    ready, told = os.pipe()
    holder = spawn(lambda: _hold(hold, told))
    os.close(told)
    held = os.read(ready, 1) == b"x"
    os.close(ready)
    unbind = in_thread(lambda: write_once(DRIVER + "/unbind", ADDRESS))
    time.sleep(UNBIND_WAITS)
    waits = unbind.running()
    os.kill(holder, number)
    limit = time.monotonic() + KILL_LIMIT
    while unbind.running() and time.monotonic() < limit:
        time.sleep(0.05)
    stuck = unbind.running() or reap(holder, KILL_LIMIT) is None
    if not held or stuck:
        return STUCK
    unbind.join()
    return OK if waits else OTHER


def unbind_open(times: int) -> Counter:
    """Unbind while somebody has the device: it waits, and completes when the holder goes or is killed."""
    tally: Counter = Counter()
    for _ in range(times):
        for what, hold in HOLDERS.items():
            for number in (signal.SIGTERM, signal.SIGKILL):
                tally[f"unbind from {what}, {number.name}", _unbind_from(hold, number)] += 1
                attempt(tally, "bind", lambda: write_once(DRIVER + "/bind", ADDRESS))
    attempt(tally, "check", check_works)
    return tally


def _rmmod() -> str:
    done = subprocess.run(["rmmod", MODULE], check=False, stderr=subprocess.PIPE, text=True)
    return "in use" if "is in use" in done.stderr else OTHER if done.returncode else OK


def _insmod() -> None:
    subprocess.run(["insmod", MODULE_FILE, *([f"layout={LAYOUT}"] if OURS else [])], check=True)
    # Loading binds it already: driver_override still names it.
    if not os.path.exists(DEVICE + "/driver"):
        write_once(DRIVER + "/bind", ADDRESS)


def removal(times: int) -> Counter:
    """rmmod: refused while the device is open, done when it is only bound."""
    tally: Counter = Counter()
    for _ in range(times):
        with OpenDevice(ADDRESS):
            tally["rmmod refused while open", OK if _rmmod() == "in use" else OTHER] += 1
        tally["rmmod when bound", _rmmod()] += 1
        _insmod()
        attempt(tally, "insmod, open and use", check_works)
    return tally
