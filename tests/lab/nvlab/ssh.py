# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""ssh into a lab, and waiting until that works."""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError

# Every lab makes its own host keys on a forwarded loopback port that another lab had before: nothing to verify.
OPTIONS = {
    "UserKnownHostsFile": "/dev/null",
    "GlobalKnownHostsFile": "/dev/null",
    "StrictHostKeyChecking": "no",
    "IdentitiesOnly": "yes",
    "LogLevel": "ERROR",
}
LOGIN_TIMEOUT = 120.0  # seconds
# Until the keys are exchanged, seconds: an emulated sshd beside three hosts that work needs more than Ansible's 10.
CONNECT_TIMEOUT = 100


def banner_timeout(waited: float) -> float:
    """Return how many seconds to wait for a banner after ``waited`` seconds of a boot.

    An early connection may hang in QEMU's network and is better made anew. On a crowded machine sshd needs half a
    minute for its banner, and asking again would only make it start one more process each time and finish none.
    """
    return min(max(3.0, waited / 4), 60.0)


def option_words() -> list[str]:
    """Return the -o options as words."""
    return [word for key, value in OPTIONS.items() for word in ("-o", f"{key}={value}")]


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Login:
    """How to reach a lab."""

    port: int
    key: Path

    def argv(self, command: Sequence[str] = (), batch: bool = False) -> list[str]:
        """Return the argv of ssh. One word is a line for the host's shell; several are a command, word for word."""
        options = option_words() + (["-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_TIMEOUT}"] if batch else [])
        return ["ssh", "-F", "none", "-i", str(self.key), "-p", str(self.port), *options, "root@127.0.0.1",
                *([command[0] if len(command) == 1 else shlex.join(command)] if command else [])]

    def run(self, script: str, timeout: float = LOGIN_TIMEOUT) -> str:
        """Run a shell script in the lab and return its output. Raises LabError when ssh or the script fails."""
        try:
            answer = subprocess.run(self.argv(["sh", "-c", script], batch=True), check=False, capture_output=True,
                                    text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"ssh to port {self.port} did not answer within {timeout:.0f} s.") from error
        if answer.returncode != 0:
            raise LabError(f"ssh to port {self.port} failed with status {answer.returncode}: {answer.stderr.strip()}")
        return answer.stdout

    def upload(self, directory: Path, target: str) -> None:
        """Copy what is in a directory into one of the host's. Raises LabError when that fails."""
        with subprocess.Popen(["tar", "-C", str(directory), "-cf", "-", "."], stdout=subprocess.PIPE) as archive:
            command = shlex.join(["tar", "-C", target, "--no-same-owner", "-xf", "-"])
            answer = subprocess.run(self.argv([command], batch=True), check=False, stdin=archive.stdout,
                                    capture_output=True, text=True)
        if answer.returncode != 0 or archive.returncode != 0:
            raise LabError(f"Copying {directory} to {target} in the host failed: {answer.stderr.strip()}")

    def write(self, path: str, data: bytes) -> None:
        """Write a file of the host. Raises LabError when that fails."""
        answer = subprocess.run(self.argv([f"cat > {shlex.quote(path)}"], batch=True), check=False, input=data,
                                capture_output=True, timeout=LOGIN_TIMEOUT)
        if answer.returncode != 0:
            raise LabError(f"Writing {path} in the host failed: {answer.stderr.decode(errors='replace').strip()}")

    def power_off(self) -> None:
        """Tell the host to go down; how the connection ends says nothing, because the host may be faster."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(self.argv(["systemctl", "poweroff"], batch=True), check=False, timeout=LOGIN_TIMEOUT,
                           stdin=subprocess.DEVNULL, capture_output=True)

    def boot_id(self) -> str:
        """Return the id of the host's current boot."""
        return self.run("cat /proc/sys/kernel/random/boot_id").strip()

    def greets(self, timeout: float) -> bool:
        """Return whether sshd sends its banner: cheaper than a login, and QEMU accepts connections from its start."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def wait_for_banner(self, seconds: float, alive: Callable[[], bool]) -> None:
        """Wait until sshd greets. Raises LabError when ``alive`` says no or the time is over."""
        begin = time.monotonic()
        while (waited := time.monotonic() - begin) < seconds:
            if not alive():
                raise LabError("QEMU or a GPU server ended before ssh answered.")
            if self.greets(banner_timeout(waited)):
                return
            time.sleep(0.1)
        raise LabError(f"ssh did not answer within {seconds:.0f} s.")

    def wait(self, seconds: float, alive: Callable[[], bool], old_boot: str | None = None) -> str:
        """Wait until a login works, on another boot than ``old_boot``; return the boot id.

        Raises LabError when ``alive`` says no or the time is over.
        """
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.wait_for_banner(left, alive)
            try:
                boot = self.boot_id()
            except LabError:
                boot = old_boot or ""
            if boot not in ("", old_boot):
                return boot
            time.sleep(0.5)
        raise LabError(f"ssh did not answer within {seconds:.0f} s.")
