# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The process that plays one GPU: a vfio-user socket for QEMU and a control socket for tests.

The control socket takes one line a request and answers one line of JSON: the state after it, or an error.
"""

from __future__ import annotations

import argparse
import json
import math
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .errors import LabError, UsageError
from .gpufunction import GpuFunction
from .products import FUNCTIONS
from .readiness import TIMEOUT_CODES
from .vfiouser import Session


class Log:
    """A log of one line an event, with the time in seconds since the epoch."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)

    def __call__(self, text: str) -> None:
        self._file.write(f"{time.time():.3f} {text}\n")


REQUESTS = ("state, ready, not-ready, ready-after SECONDS, gone or back, and with a CXL DVSEC info-valid, "
            "info-invalid, info-valid-after SECONDS, timeout-code 0 to 7, silent or answering")


def _seconds(word: str) -> float:
    if not word.replace(".", "", 1).isdecimal():
        raise ValueError(f"{word!r} is no number of seconds")
    return float(word)


def _timeout_code(word: str) -> int:
    if not word.isdecimal() or int(word) >= TIMEOUT_CODES:
        raise ValueError(f"{word!r} is no time-out code from 0 to {TIMEOUT_CODES - 1}")
    return int(word)


# What happens to a card happens to all its functions.
WHOLE_CARD = ("gone", "back")

# A request's first word -> what it does, without and with one more word.
PLAIN: Mapping[str, Callable[[GpuFunction], None]] = {
    "state": lambda function: None,
    "ready": lambda function: function.set_ready_delay(0),
    "not-ready": lambda function: function.set_ready_delay(math.inf),
    "info-valid": lambda function: function.set_info_delay(0),
    "info-invalid": lambda function: function.set_info_delay(math.inf),
    "gone": lambda function: function.set_gone(True),
    "back": lambda function: function.set_gone(False),
    "silent": lambda function: function.set_answering(False),
    "answering": lambda function: function.set_answering(True),
}
WITH_VALUE: Mapping[str, Callable[[GpuFunction, str], None]] = {
    "ready-after": lambda function, word: function.set_ready_delay(_seconds(word)),
    "info-valid-after": lambda function, word: function.set_info_delay(_seconds(word)),
    "timeout-code": lambda function, word: function.set_timeout_code(_timeout_code(word)),
}


def _carry_out(function: GpuFunction, words: Sequence[str]) -> None:
    if len(words) == 1 and words[0] in PLAIN:
        PLAIN[words[0]](function)
    elif len(words) == 2 and words[0] in WITH_VALUE:
        WITH_VALUE[words[0]](function, words[1])
    else:
        raise ValueError(f"unknown request {' '.join(words)!r}")


def control(function: GpuFunction, request: str) -> dict[str, object]:
    """Carry out one request of the control socket and return the answer."""
    try:
        _carry_out(function, request.split())
    except ValueError as error:
        return {"error": str(error)}
    return function.describe()


def ask(path: Path, request: str) -> dict[str, object]:
    """Send one request to a control socket. Raises LabError when nobody answers, UsageError for an unknown request."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        try:
            client.connect(str(path))
            client.sendall(request.encode() + b"\n")
            answer: dict[str, object] = json.loads(client.makefile().readline())
        except (OSError, ValueError) as error:
            raise LabError(f"The GPU server at {path} does not answer ({error}).") from error
    if "error" in answer:
        raise UsageError(f"The GPU answers: {answer['error']}; try {REQUESTS}.")
    return answer


def serve_control(path: Path, function: GpuFunction) -> None:
    """Serve the control socket in threads of its own."""
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(json.dumps(control(function, line.decode())).encode() + b"\n")

    server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()


def serve_device(listener: socket.socket, function: GpuFunction, log: Log) -> None:
    """Serve one client after the other, for ever; the function's state outlives them, as a GPU's does."""
    while True:
        connection, _ = listener.accept()
        log("client connected")
        with connection:
            try:
                Session(connection, function, log).serve()
            except OSError as error:
                log(f"connection lost: {error}")
        log("client gone")


def main(arguments: list[str]) -> None:
    """Run the server until it is killed. The device socket appears last: who sees it can connect to both."""
    parser = argparse.ArgumentParser(prog="gpuserver")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--control", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--product", choices=FUNCTIONS, required=True)
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--readiness", required=True, help="a request of the control socket")
    parser.add_argument("--small-bar0", action="store_true")
    options = parser.parse_args(arguments)
    log = Log(options.log)
    product = FUNCTIONS[options.product]
    function = GpuFunction(product.with_small_bar0() if options.small_bar0 else product, options.index, log)
    control(function, options.readiness)
    serve_control(options.control, function)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        unready = options.socket.with_suffix(".new")
        listener.bind(str(unready))
        listener.listen(1)
        unready.rename(options.socket)
        serve_device(listener, function, log)


if __name__ == "__main__":
    main(sys.argv[1:])
