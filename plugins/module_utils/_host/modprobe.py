# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel modules as the host sees them: loaded, built in, installed, blacklisted."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from .._core.host import Host

# The order of modprobe.d(5). /lib is usually a link to /usr/lib; reading a file twice changes nothing.
CONFIG_DIRECTORIES = ("/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d",
                      "/lib/modprobe.d")

_MODULE_PATH = re.compile(r"^(?:[^:\n]*/)?([^/:\n]+?)\.ko", re.MULTILINE)


def normal(module: str) -> str:
    """The name that the kernel uses: modprobe takes "-" and "_" for the same character."""
    return module.replace("-", "_")


@dataclass(frozen=True)
class ModuleIndex:
    """Names of kernel modules, all with underscores."""

    loaded: frozenset[str]
    built_in: frozenset[str]
    installed: frozenset[str]
    blacklisted: frozenset[str]

    def available(self, module: str) -> bool:
        """The module's code is in the kernel now."""
        return normal(module) in self.loaded or normal(module) in self.built_in


def read_modules(host: Host, release: str, cmdline: str) -> ModuleIndex:
    """Reads /proc/modules, the module lists of a kernel release and every modprobe.d directory."""
    return replace(
        read_present_modules(host, release),
        installed=_module_names(host, f"/lib/modules/{release}/modules.dep"),
        blacklisted=frozenset(_blacklist_files(host) | _blacklist_arguments(cmdline)),
    )


def read_present_modules(host: Host, release: str) -> ModuleIndex:
    """What is in the kernel now. What is installed and blacklisted is left out: it takes the longest to read."""
    nothing: frozenset[str] = frozenset()
    return ModuleIndex(
        loaded=frozenset(line.split()[0] for line in _lines(host, "/proc/modules")),
        built_in=_module_names(host, f"/lib/modules/{release}/modules.builtin"),
        installed=nothing, blacklisted=nothing)


def _lines(host: Host, path: str) -> list[str]:
    return [line for line in (host.read_text(path) or "").splitlines() if line.strip()]


def _module_names(host: Host, path: str) -> frozenset[str]:
    """The modules that the lines of a list begin with. Lists have thousands of lines, so that they are read at once."""
    return frozenset(_MODULE_PATH.findall(normal(host.read_text(path) or "")))


def _blacklist_files(host: Host) -> set[str]:
    names = set()
    for directory in CONFIG_DIRECTORIES:
        for name in host.listdir(directory):
            if name.endswith(".conf"):
                names |= parse_blacklist(host.read_text(f"{directory}/{name}") or "")
    return names


def parse_blacklist(text: str) -> set[str]:
    """The modules that one modprobe.d file blacklists."""
    return {normal(match) for match in re.findall(r"^\s*blacklist\s+(\S+)", text, re.MULTILINE)}


def _blacklist_arguments(cmdline: str) -> set[str]:
    names: set[str] = set()
    for argument in cmdline.split():
        key, _equals, value = argument.partition("=")
        if key in ("module_blacklist", "modprobe.blacklist"):
            names |= {normal(name) for name in value.split(",") if name}
    return names
