# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adapter to libvirt: virsh is the only way in."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

from .._core.errors import CommandError, PassthroughError
from .._core.host import CommandResult, Host

SYSTEM = "qemu:///system"
_TIMEOUT = 180.0
_SCRATCH = "/run"
_NOT_THERE = "failed to get domain"


@dataclass(frozen=True)
class Definition:
    """A domain as libvirt has it. ``xml`` is how it would start next."""

    running: bool
    autostart: bool
    xml: str


class Virsh:
    """The libvirt of one host. Every method raises PassthroughError where libvirt is missing or does not answer."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def installed(self) -> bool:
        return self.host.which("virsh") is not None

    def find(self, name: str) -> Optional[Definition]:
        """None where no domain has the name. One call of virsh: it is what a converged run costs."""
        result = self._run([f"dominfo {name}; dumpxml --inactive {name}"], ok=())
        if result.rc != 0:
            if _NOT_THERE in result.stderr:
                return None
            raise PassthroughError(f"libvirt does not answer on {SYSTEM}: {_reason(result.stderr)}; start libvirtd.")
        head, xml = _split(result.stdout)
        fields = dict(line.split(":", 1) for line in head.splitlines() if ":" in line)
        state = fields.get("State", "").strip()
        return Definition(state not in ("shut off", "crashed"), fields.get("Autostart", "").strip() == "enable", xml)

    def live_xml(self, name: str) -> str:
        """The XML of a domain as it runs."""
        return _split(self._run(["dumpxml", name]).stdout)[1]

    def inactive_xml(self, name: str) -> str:
        return _split(self._run(["dumpxml", "--inactive", name]).stdout)[1]

    def normalise(self, name: str, xml: str) -> str:
        """The XML as this host's libvirt would keep it, validated against its schema; nothing is defined.

        The driver inside virsh does it on a state directory of its own, so that check mode can tell whether a
        definition would change anything. libvirt drops what it does not know unless it is asked to validate.
        """
        with self._scratch(xml) as (directory, path):
            script = f"define --validate {path}; dumpxml --inactive {name}"
            result = self._run([script], uri=f"qemu:///embed?root={directory}/state", ok=())
        if result.rc != 0:
            if "failed to connect to the hypervisor" in result.stderr:
                raise PassthroughError("libvirt's QEMU driver cannot be opened on this host: "
                                       f"{_reason(result.stderr)}; install libvirt-daemon-driver-qemu.")
            raise PassthroughError(f"libvirt refuses the domain {name}: {_reason(result.stderr)}.")
        return _split(result.stdout)[1]

    def define(self, name: str, xml: str) -> None:
        with self._scratch(xml) as (_directory, path):
            try:
                self._run(["define", "--validate", path])
            except CommandError as error:
                reason = _reason(str(error.details.get("stderr", error.message)))
                raise PassthroughError(f"libvirt refuses the domain {name}: {reason}.") from error

    def argv(self, xml: str) -> list[str]:
        """The command line with which libvirt would start QEMU, environment first."""
        with self._scratch(xml) as (_directory, path):
            text = self._run(["domxml-to-native", "qemu-argv", "--xml", path]).stdout
        return shlex.split(text.replace("\\\n", " "))

    def _run(self, arguments: list[str], uri: str = SYSTEM, ok: tuple[int, ...] = (0,)) -> CommandResult:
        if not self.installed():
            raise PassthroughError("libvirt is missing on this host (virsh was not found): install libvirt-clients "
                                   "and libvirt-daemon-system, or set define to false.")
        return self.host.run(["virsh", "-q", "-c", uri, *arguments], timeout=_TIMEOUT, ok=ok)

    @contextlib.contextmanager
    def _scratch(self, xml: str) -> Iterator[tuple[str, str]]:
        """A directory and a file with the XML in it, both gone afterwards.

        libvirt probes QEMU as an unprivileged user, which has to be able to pass through the directory.
        """
        parent = self.host.path(_SCRATCH)
        os.makedirs(parent, exist_ok=True)
        real = tempfile.mkdtemp(prefix="nvgrace-", dir=parent)
        try:
            os.chmod(real, 0o711)
            with open(os.path.join(real, "domain.xml"), "w", encoding="utf-8") as handle:
                handle.write(xml)
            directory = f"{_SCRATCH}/{os.path.basename(real)}"
            yield directory, f"{directory}/domain.xml"
        finally:
            shutil.rmtree(real, ignore_errors=True)


def _split(output: str) -> tuple[str, str]:
    """What virsh said before the XML, and the XML."""
    head, start, xml = output.partition("<domain")
    return head, f"{start}{xml}".strip() + "\n"


def _reason(stderr: str) -> str:
    """What virsh says after its own first line ("Failed to define domain ..."), on one line."""
    lines = [line.strip() for line in stderr.replace("error:", "\n").splitlines()
             if line.strip() and _NOT_THERE not in line]
    telling = lines[1:] or lines or ["no output"]
    return " ".join(telling).rstrip(".")
