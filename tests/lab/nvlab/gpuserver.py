# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The process that plays one GPU: a vfio-user socket for QEMU and a control socket for tests.

The control socket takes one line a request (ready, not-ready, ready-after SECONDS, state) and answers one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import socket
import socketserver
import sys
import threading
import time
from pathlib import Path

from .errors import LabError, UsageError
from .gpufunction import GpuFunction
from .products import PRODUCTS
from .vfiouser import Session


class Log:
    """A log of one line an event, with the time in seconds since the epoch."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)

    def __call__(self, text: str) -> None:
        self._file.write(f"{time.time():.3f} {text}\n")


def control(function: GpuFunction, request: str) -> dict[str, object]:
    """Carry out one request of the control socket and return the answer."""
    words = request.split()
    if words == ["ready"]:
        function.become_ready()
    elif words == ["not-ready"]:
        function.become_not_ready()
    elif len(words) == 2 and words[0] == "ready-after" and words[1].replace(".", "", 1).isdecimal():
        function.become_ready_after(float(words[1]))
    elif words != ["state"]:
        return {"error": f"unknown request {request.strip()!r}"}
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
        raise UsageError(f"The GPU answers: {answer['error']}; try state, ready, not-ready or ready-after SECONDS.")
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
    parser.add_argument("--product", choices=PRODUCTS, required=True)
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--readiness", required=True, help="a request of the control socket")
    options = parser.parse_args(arguments)
    log = Log(options.log)
    function = GpuFunction(PRODUCTS[options.product], options.index, log)
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
