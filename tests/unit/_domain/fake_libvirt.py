# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host whose virsh is played by a small libvirt in memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import CommandError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.host import CommandResult, Host

DOMAIN = "<domain type='kvm'><name>{name}</name><memory unit='KiB'>{memory}</memory></domain>\n"


@dataclass
class Libvirt:
    """``domains`` are the inactive definitions, ``live`` the XML of running domains, ``log`` the scripts of virsh."""

    domains: dict[str, str] = field(default_factory=dict)
    live: dict[str, str] = field(default_factory=dict)
    autostart: set[str] = field(default_factory=set)
    log: list[str] = field(default_factory=list)
    down: str = ""
    embedded_down: bool = False
    argv_error: str = ""


class FakeHost(Host):
    """libvirt's normal form here: a machine attribute is added, and an element called foo does not validate."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.libvirt = Libvirt()
        self.install_virsh()

    def install_virsh(self) -> None:
        self.write_atomic("/usr/bin/virsh", b"", 0o755)

    def run(self, argv: Sequence[str], timeout: float = 60, ok: Sequence[int] = (0,),
            cwd: str | None = None) -> CommandResult:
        assert list(argv[:3]) == ["virsh", "-q", "-c"]
        uri, script = argv[3], " ".join(argv[4:])
        self.libvirt.log.append(script)
        out, err = [], []
        rc = 0
        if self.libvirt.down:
            rc, err = 1, ["error: failed to connect to the hypervisor", f"error: {self.libvirt.down}"]
        elif uri.startswith("qemu:///embed") and self.libvirt.embedded_down:
            rc, err = 1, ["error: failed to connect to the hypervisor", "error: no driver"]
        else:
            domains = {} if uri.startswith("qemu:///embed") else self.libvirt.domains
            for command in script.split("; "):
                rc, text = self._command(command.split(), domains)
                (err if rc else out).append(text)
        result = CommandResult(tuple(argv), rc, "\n".join(out), "\n".join(err))
        if ok and rc not in ok:
            raise CommandError(f"{' '.join(argv)} failed with status {rc}: {result.last_line()}", stderr=result.stderr)
        return result

    def _command(self, words: list[str], domains: dict[str, str]) -> tuple[int, str]:
        verb = words[0]
        options = [word for word in words[1:] if word.startswith("--")]
        rest = [word for word in words[1:] if not word.startswith("--")]
        if verb == "define":
            return self._define(rest[0], domains)
        if verb == "domxml-to-native":
            if self.libvirt.argv_error:
                return 1, f"error: {self.libvirt.argv_error}"
            return 0, "LC_ALL=C \\\n/usr/bin/qemu-system-aarch64 \\\n-name 'guest=a b'"
        name = rest[0]
        if name not in domains:
            return 1, f"error: failed to get domain '{name}'"
        if verb == "dominfo":
            state = "running" if name in self.libvirt.live else "shut off"
            enabled = "enable" if name in self.libvirt.autostart else "disable"
            return 0, f"Id:             -\nName:           {name}\nState:          {state}\nAutostart:      {enabled}\n"
        if verb == "dumpxml":
            return 0, domains[name] if "--inactive" in options else self.libvirt.live.get(name, domains[name])
        if verb == "autostart":
            (self.libvirt.autostart.discard if "--disable" in options else self.libvirt.autostart.add)(name)
            return 0, ""
        if verb == "undefine":
            del domains[name]
            return 0, ""
        raise AssertionError(f"unknown verb {verb}")

    def _define(self, path: str, domains: dict[str, str]) -> tuple[int, str]:
        xml = (self.read_bytes(path) or b"").decode()
        root = ElementTree.fromstring(xml)
        if root.find("foo") is not None:
            reason = "XML document failed to validate\nExtra element"
            return 1, f"error: Failed to define domain from {path}\nerror: {reason}"
        name = root.findtext("name") or ""
        domains[name] = re.sub(r"<domain type='kvm'>", "<domain type='kvm' machine='virt-10.0'>", xml)
        return 0, f"Domain '{name}' defined from {path}\n"
