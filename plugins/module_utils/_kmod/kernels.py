# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adapter: the kernels that a host has, their headers, and the files of their modules."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Optional

from .._core.host import Host
from .facts import HANDED_DIR, INSTALL_DIRS, ModInfo, Package, check_name
from .packages import following_packages

IN_TREE_DIR = "kernel/drivers/vfio/pci/nvgrace-gpu"

_SUFFIXES = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")
_DPKG = "/var/lib/dpkg/info"
_COMPILER = re.compile(r'^CONFIG_CC_VERSION_TEXT="?([^\s"]+)', re.MULTILINE)
_SIGNS = re.compile(r"^CONFIG_MODULE_SIG_HASH=", re.MULTILINE)
_FAMILIES = {"debian": "debian", "ubuntu": "debian", "rhel": "rhel", "fedora": "rhel", "centos": "rhel",
             "suse": "suse", "opensuse": "suse", "sles": "suse"}


def host_machine(host: Host) -> str:
    """``uname -m`` of the host."""
    return host.read_text("/proc/sys/kernel/arch") or os.uname().machine


def resolve_kernels(host: Host, wanted: Sequence[str]) -> tuple[str, ...]:
    """Kernel releases for a list of releases and the words ``running`` and ``installed``, without doubles."""
    releases: list[str] = []
    for word in wanted:
        if word == "running":
            releases.append(host.kernel_release())
        elif word == "installed":
            releases += installed_kernels(host)
        else:
            releases.append(check_name(word, "kernel release"))
    return tuple(dict.fromkeys(releases))


def installed_kernels(host: Host) -> list[str]:
    """Releases whose modules are on the host; a directory that an old kernel left behind does not count."""
    return [name for name in host.listdir("/lib/modules") if host.is_dir(f"/lib/modules/{name}/kernel")]


def kernels_without_module(host: Host, package: Package, targets: Sequence[str]) -> list[str]:
    """Installed kernels beside the targets that have no copy of the module, neither ours nor their own."""
    places = (*INSTALL_DIRS, HANDED_DIR, IN_TREE_DIR)
    return [release for release in installed_kernels(host)
            if release not in targets and not is_built_in(host, package, f"/lib/modules/{release}")
            and not any(module_file(host, f"/lib/modules/{release}/{place}", package.name) for place in places)]


def own_vermagic(host: Host, release: str) -> Optional[str]:
    """The vermagic of the modules that came with a kernel, None where it has none that VFIO needs."""
    directory = f"/lib/modules/{release}/kernel/drivers/vfio/pci"
    path = module_file(host, directory, "vfio-pci-core") or module_file(host, directory, "vfio-pci")
    return modinfo(host, path).vermagic if path else None


def distribution_family(host: Host) -> str:
    """``debian``, ``rhel``, ``suse`` or ``unknown``, from ID and ID_LIKE of os-release."""
    return next((_FAMILIES[word] for word in distribution_names(host) if word in _FAMILIES), "unknown")


def distribution_names(host: Host) -> list[str]:
    """ID and then the words of ID_LIKE of os-release."""
    fields = _os_release(host)
    return f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".replace('"', "").split()


def _os_release(host: Host) -> dict[str, str]:
    text = host.read_text("/etc/os-release") or host.read_text("/usr/lib/os-release") or ""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def modinfo(host: Host, path: str) -> ModInfo:
    """srcversion, signature and ``vfio_pci:`` aliases of a module file; nothing where the file is damaged."""
    fields: dict[str, list[str]] = {}
    for line in host.run(("modinfo", host.path(path)), ok=()).stdout.splitlines():
        key, _colon, value = line.partition(":")
        fields.setdefault(key.strip(), []).append(value.strip())
    first = {key: values[0] or None for key, values in fields.items()}
    serial = first.get("sig_key")
    return ModInfo(first.get("srcversion"), first.get("signer"), vfio_aliases(fields.get("alias", [])),
                   bool(first.get("sig_id") or first.get("signer")),
                   serial.replace(":", "").lower() if serial else None, first.get("vermagic"))


def vfio_aliases(aliases: Sequence[str]) -> tuple[str, ...]:
    """Those among a module's aliases that VFIO's users look for."""
    return tuple(sorted(alias for alias in aliases if alias.startswith("vfio_pci:")))


def module_file(host: Host, directory: str, name: str) -> Optional[str]:
    """The file of a module in a directory, whatever it is compressed with."""
    for suffix in _SUFFIXES:
        if host.lexists(f"{directory}/{name}{suffix}"):
            return f"{directory}/{name}{suffix}"
    return None


def is_built_in(host: Host, package: Package, directory: str) -> bool:
    """Whether the kernel whose modules are in the directory has the driver in its image."""
    return f"/{package.name}.ko\n" in f"{host.read_text(f'{directory}/modules.builtin')}\n"


def missing_compiler_of(host: Host, build: str) -> Optional[str]:
    """``gcc`` or ``clang``, whichever the kernel was built with, when the host has neither it nor that very version."""
    named = "gcc"
    for name in ("include/config/auto.conf", ".config"):
        match = _COMPILER.search(host.read_text(f"{build}/{name}") or "")
        if match:
            named = match[1]
            break
    family = "clang" if "clang" in named else "gcc"
    return None if host.which(named) or host.which(family) else family


def supports_signing(host: Host, build: str) -> Optional[bool]:
    """Whether a kernel was built for signed modules, by its build directory; None where that has no configuration."""
    text = host.read_text(f"{build}/include/config/auto.conf")
    return None if text is None else _SIGNS.search(text) is not None


def headers_follower(host: Host, release: str) -> Optional[str]:
    """The package for the headers of kernels to come, where the one for their images is installed and it is not."""
    if not host.is_dir(_DPKG):
        return None
    for image, headers in following_packages(release, _os_release(host).get("VERSION_ID", "").strip('"')):
        if host.exists(f"{_DPKG}/{image}.list") and not host.exists(f"{_DPKG}/{headers}.list"):
            return headers
    return None
