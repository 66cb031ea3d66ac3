# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known about the kernel module on a host, as values. Nothing here reads the host."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Optional

from .._core.errors import PassthroughError

DKMS_TREE = "/var/lib/dkms"
INSTALL_DIRS = ("updates/dkms", "extra", "updates")
"""Where DKMS puts modules below /lib/modules/K: Debian and Ubuntu, Fedora and RHEL, SUSE."""
HANDED_DIR = "updates/nvgrace-passthrough"
"""Where a module goes below /lib/modules/K that another host has built."""
CERTIFICATE_PREFIX = "/var/lib/nvgrace-passthrough/signing-"
"""The certificates of such modules, for mokutil."""

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}")


def check_name(value: str, what: str) -> str:
    """The value, if it can be one part of a path; raises PassthroughError otherwise."""
    if not _SAFE_NAME.fullmatch(value):
        raise PassthroughError(f"{value[:80]!r} cannot be a {what}: letters, digits and '._+~-' are allowed, and the "
                               "first must be a letter or a digit.")
    return value


@dataclass(frozen=True)
class Package:
    """A DKMS package with one module of the same name."""

    name: str
    version: str

    @property
    def module(self) -> str:
        """The name in /sys/module: the kernel build replaces '-' by '_'."""
        return self.name.replace("-", "_")

    @property
    def source_dir(self) -> str:
        return f"/usr/src/{self.name}-{self.version}"

    @property
    def root(self) -> str:
        """What DKMS keeps about all versions of the package."""
        return f"{DKMS_TREE}/{self.name}"

    @property
    def tree(self) -> str:
        """What DKMS keeps about this version."""
        return f"{self.root}/{self.version}"


@dataclass(frozen=True)
class ModInfo:
    """The parts of modinfo that decide.

    ``signer`` and ``sig_key`` are common name and serial number (lower-case hexadecimal) of the certificate that a
    module is ``signed`` with; None where there is no signature, or one that modinfo cannot read. ``vermagic`` names the
    kernel that it was built for.
    """

    srcversion: Optional[str] = None
    signer: Optional[str] = None
    aliases: tuple[str, ...] = ()
    signed: bool = False
    sig_key: Optional[str] = None
    vermagic: Optional[str] = None


@dataclass(frozen=True)
class InTree:
    """The kernel's own copy. ``archived``: DKMS has moved it away to install ours over it."""

    path: str
    info: ModInfo
    archived: bool = False


@dataclass(frozen=True)
class Handed:
    """The file of a module that another host has built."""

    path: str
    sha256: str
    info: ModInfo = ModInfo()


@dataclass(frozen=True)
class KernelFacts:
    """The module in one kernel.

    ``headers``: its build directory is complete. ``missing_compiler``: ``gcc`` or ``clang`` where the host lacks it.
    ``builds`` has the path of the built module by version, None for a build that was interrupted. ``active`` is the
    version that DKMS calls installed. ``copy`` says what the installed file is: ``none`` (no file), ``same`` as the
    build, ``partial`` (the beginning of it: a copy that was interrupted) or ``other``. ``listed`` is the path that
    modules.dep gives, relative to /lib/modules/K. ``archived``: DKMS has moved modules of this kernel away. ``info`` is
    of the installed file where that is the build, ``built_info`` of the build of the version that is asked for.
    ``signs``: the kernel was built for signed modules, None where its configuration is not there. ``follower`` is the
    package that would bring the headers of the next kernel and is not installed, while the one for images is.
    """

    release: str
    exists: bool = True
    headers: bool = True
    missing_compiler: Optional[str] = None
    builds: dict[str, Optional[str]] = field(default_factory=dict)
    active: Optional[str] = None
    installed: Optional[str] = None
    copy: str = "none"
    listed: Optional[str] = None
    info: ModInfo = ModInfo()
    built_info: ModInfo = ModInfo()
    in_tree: Optional[InTree] = None
    archived: bool = False
    signs: Optional[bool] = None
    follower: Optional[str] = None
    handed: Optional[Handed] = None

    @property
    def directory(self) -> str:
        return f"/lib/modules/{self.release}"

    @property
    def place(self) -> Optional[str]:
        """The file of ours that counts."""
        return self.handed.path if self.handed else self.installed

    @property
    def stale_list(self) -> bool:
        """True when modules.dep does not name the installed file, or names one outside the kernel that is gone."""
        if self.place is not None:
            return self.listed is None or f"{self.directory}/{self.listed}" != self.place
        return self.listed is not None and not self.listed.startswith("kernel/")

    def has_build(self, version: str) -> bool:
        return self.builds.get(version) is not None


@dataclass(frozen=True)
class TreeVersion:
    """One version in the DKMS tree. ``link`` of its source: ``ok``, ``missing`` or ``wrong`` (it leads elsewhere)."""

    version: str
    link: str = "ok"
    has_conf: bool = True


@dataclass(frozen=True)
class Loaded:
    """The module in the running kernel's memory; ``devices`` are the addresses that it drives."""

    srcversion: Optional[str] = None
    users: int = 0
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """What kmod.json keeps: the hash of the source that each version was built from (empty while it is being
    replaced), what did not exist before our first build, and the SHA-256 of the operator's certificate that the builds
    are signed with (None: DKMS's own)."""

    sources: dict[str, str] = field(default_factory=dict)
    missing_keys: tuple[str, ...] = ()
    new_directories: tuple[str, ...] = ()
    certificate: Optional[str] = None

    def as_json(self) -> dict[str, Any]:
        return {"sources": dict(self.sources), "missing_keys": list(self.missing_keys),
                "new_directories": list(self.new_directories), "certificate": self.certificate}


@dataclass(frozen=True)
class HostFacts:
    """Everything that the planner needs. ``kernels`` covers those asked for, those in the DKMS tree and those with a
    handed-out module. ``journal`` are the files whose original state we keep."""

    running: str
    machine: str
    family: str
    programs: frozenset[str]
    kernels: tuple[KernelFacts, ...]
    versions: tuple[TreeVersion, ...] = ()
    source_sha256: Optional[str] = None
    record: Optional[Record] = None
    missing_keys: tuple[str, ...] = ()
    missing_directories: tuple[str, ...] = ()
    loaded: Optional[Loaded] = None
    journal: tuple[str, ...] = ()

    def kernel(self, release: str) -> KernelFacts:
        return next(kernel for kernel in self.kernels if kernel.release == release)

    def tree_version(self, version: str) -> Optional[TreeVersion]:
        return next((known for known in self.versions if known.version == version), None)


@dataclass(frozen=True)
class Request:
    """What the operator asked for. ``targets`` are kernel releases, ``build_timeout`` is in seconds.

    ``export``: build for hosts elsewhere, install nothing.
    """

    package: Package
    targets: tuple[str, ...]
    prefer_in_tree: bool = True
    required_ids: frozenset[str] = frozenset()
    force: bool = False
    build_timeout: int = 1800
    export: bool = False
