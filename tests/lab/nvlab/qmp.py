# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""One command to QEMU's monitor."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from .errors import LabError

TIMEOUT = 10.0  # seconds


def execute(path: Path, command: str, arguments: Mapping[str, object] | None = None,
            timeout: float = TIMEOUT) -> object:
    """Send ``command`` and return its result. Raises LabError when QEMU does not answer or refuses."""
    requests: list[dict[str, object]] = [{"execute": "qmp_capabilities"},
                                         {"execute": command, "arguments": dict(arguments or {})}]
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(timeout)
            client.connect(str(path))
            stream = client.makefile("rw")
            stream.readline()
            for request in requests:
                stream.write(json.dumps(request) + "\n")
                stream.flush()
                answer = _answer(stream.readline)
    except (OSError, ValueError) as error:
        raise LabError(f"QEMU's monitor at {path} does not answer {command} ({error}).") from error
    if "error" in answer:
        raise LabError(f"QEMU refuses {command}: {answer['error']}.")
    return answer["return"]


def _answer(readline: Callable[[], str]) -> dict[str, object]:
    while True:
        message: dict[str, object] = json.loads(readline())
        if "event" not in message:
            return message
