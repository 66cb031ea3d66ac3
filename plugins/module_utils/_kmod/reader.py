# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adapter: reads the state of the kernel module from a host.

It reads files only and calls no ``dkms status``: that script needs seconds on a slow host, and what it prints stands in
the DKMS tree (DKMS 3.0 to 3.2: ``<name>/<version>/source``, ``<name>/<version>/<kernel>/<machine>/module`` and the link
``<name>/kernel-<kernel>-<machine>`` to the build that is installed).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from typing import Optional

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.journal import Journal, StateFile
from .facts import (
    HANDED_DIR,
    INSTALL_DIRS,
    Handed,
    HostFacts,
    InTree,
    KernelFacts,
    Loaded,
    ModInfo,
    Package,
    Record,
    TreeVersion,
)
from .kernels import (
    IN_TREE_DIR,
    distribution_family,
    headers_follower,
    host_machine,
    is_built_in,
    missing_compiler_of,
    modinfo,
    module_file,
    supports_signing,
    vfio_aliases,
)
from .signing import DKMS_PAIR, UBUNTU_PAIR
from .signing_reader import framework_files
from .source import SourceTree

STATE_NAME = "kmod"

_PROGRAMS = ("dkms", "make")
_DEVICE = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_MOVED_TREE = re.compile(r"^\s*(dkms_tree|source_tree|install_tree)=", re.MULTILINE)
_HANDED = re.compile(rf"/lib/modules/([^/]+)/{re.escape(HANDED_DIR)}/")
_SIGNING_KEYS = tuple(path for pair in (DKMS_PAIR, UBUNTU_PAIR) for path in (pair.key, pair.certificate))


def read_facts(host: Host, package: Package, targets: Sequence[str]) -> HostFacts:
    """The state of a package on a host, for the ``targets`` (kernel releases), every kernel in its DKMS tree and every
    one with a handed-out module."""
    refuse_moved_trees(framework_files(host))
    machine = host_machine(host)
    journal = tuple(Journal(host, STATE_NAME).paths())
    versions = _tree_versions(host, package)
    kernels = tuple(_kernel(host, package, versions, release, machine)
                    for release in _all_releases(host, package, versions, [*targets, *_handed_releases(journal)]))
    return HostFacts(
        running=host.kernel_release(), machine=machine, family=distribution_family(host),
        programs=frozenset(name for name in _PROGRAMS if host.which(name)),
        kernels=kernels, versions=versions,
        source_sha256=_source_sha256(host, package), record=read_record(host, package),
        missing_keys=tuple(path for path in _SIGNING_KEYS if not host.lexists(path)),
        missing_directories=_missing_directories(host, targets), loaded=_loaded(host, package), journal=journal)


def _handed_releases(journal: Sequence[str]) -> list[str]:
    return [match[1] for match in map(_HANDED.match, journal) if match]


def refuse_moved_trees(files: Sequence[tuple[str, str]]) -> None:
    """Raises PassthroughError when DKMS is configured to keep its trees elsewhere, where we would not look."""
    for name, text in files:
        match = _MOVED_TREE.search(text)
        if match:
            raise PassthroughError(f"{name} sets {match[1]}: only DKMS's default places are supported, remove the "
                                   "setting first.")


def read_record(host: Host, package: Package) -> Optional[Record]:
    """Our own record of a package, or None. Raises PassthroughError for a file that is not JSON."""
    entry = StateFile(host, STATE_NAME).load().get(package.name)
    if entry is None:
        return None
    return Record(dict(entry.get("sources", {})), tuple(entry.get("missing_keys", ())),
                  tuple(entry.get("new_directories", ())), entry.get("certificate"))


def list_files(host: Host, directory: str) -> dict[str, str]:
    """Path on the host of each file below a directory, by its relative path."""
    found = {}
    for name in host.listdir(directory):
        path = f"{directory}/{name}"
        if host.is_dir(path) and not os.path.islink(host.path(path)):
            found.update({f"{name}/{below}": real for below, real in list_files(host, path).items()})
        else:
            found[name] = path
    return found


def _source_sha256(host: Host, package: Package) -> Optional[str]:
    if os.path.islink(host.path(package.source_dir)):
        raise PassthroughError(f"{package.source_dir} is a symbolic link: remove it first, its target is not touched.")
    if not host.is_dir(package.source_dir):
        return None
    files = list_files(host, package.source_dir)
    return SourceTree(tuple(sorted((name, host.read_bytes(path) or b"") for name, path in files.items()))).sha256


def _tree_versions(host: Host, package: Package) -> tuple[TreeVersion, ...]:
    found = []
    for version in host.listdir(package.root):
        known = Package(package.name, version)
        if version == "original_module" or version.startswith("kernel-") or not host.is_dir(known.tree):
            continue
        link = host.path(f"{known.tree}/source")
        state = "missing"
        if os.path.lexists(link):
            right = os.path.islink(link) and os.readlink(link) == known.source_dir
            state = "ok" if right else "wrong"
        found.append(TreeVersion(version, state, host.exists(f"{known.source_dir}/dkms.conf")))
    return tuple(found)


def _all_releases(host: Host, package: Package, versions: Sequence[TreeVersion], targets: Sequence[str]) -> list[str]:
    releases = list(targets)
    for known in versions:
        tree = Package(package.name, known.version).tree
        releases += [name for name in host.listdir(tree)
                     if name[0].isdigit() and host.is_dir(f"{tree}/{name}")]
    for name in host.listdir(package.root):
        if name.startswith("kernel-"):
            releases.append(name[len("kernel-"):].rpartition("-")[0])
    return list(dict.fromkeys(releases))


def _kernel(host: Host, package: Package, versions: Sequence[TreeVersion], release: str, machine: str) -> KernelFacts:
    directory = f"/lib/modules/{release}"
    builds: dict[str, Optional[str]] = {}
    for known in versions:
        built = f"{package.root}/{known.version}/{release}/{machine}"
        if host.is_dir(built):
            builds[known.version] = module_file(host, f"{built}/module", package.name)
    active = _active(host, f"{package.root}/kernel-{release}-{machine}")
    installed = next(filter(None, (module_file(host, f"{directory}/{place}", package.name)
                                   for place in INSTALL_DIRS)), None)
    candidates = [builds.get(active)] if active else list(builds.values())
    copy = _compare(host, installed, candidates)
    info = modinfo(host, installed) if installed and copy == "same" else ModInfo()
    asked = builds.get(package.version)
    is_asked = active == package.version and copy == "same"
    built_info = info if is_asked or asked is None else modinfo(host, asked)
    if asked and built_info.vermagic is None:
        # What is no module was left by a build that was interrupted, or damaged later.
        builds[package.version] = None
        copy = "other" if is_asked else copy
    return KernelFacts(
        release=release, exists=host.is_dir(directory), headers=host.exists(f"{directory}/build/include"),
        missing_compiler=missing_compiler_of(host, f"{directory}/build"),
        builds=builds, active=active, installed=installed, copy=copy,
        listed=_listed(host, f"{directory}/modules.dep", package.name),
        info=info, built_info=built_info,
        in_tree=_in_tree(host, package, release, machine),
        archived=bool(host.listdir(f"{package.root}/original_module/{release}/{machine}")),
        signs=supports_signing(host, f"{directory}/build"), follower=headers_follower(host, release),
        handed=_handed(host, f"{directory}/{HANDED_DIR}/{package.name}.ko"))


def _handed(host: Host, path: str) -> Optional[Handed]:
    content = host.read_bytes(path)
    return None if content is None else Handed(path, hashlib.sha256(content).hexdigest(), modinfo(host, path))


def _active(host: Host, link: str) -> Optional[str]:
    try:
        return os.readlink(host.path(link)).split("/")[-3]
    except (OSError, IndexError):
        return None


def _compare(host: Host, installed: Optional[str], candidates: Sequence[Optional[str]]) -> str:
    if installed is None:
        return "none"
    content = host.read_bytes(installed) or b""
    answers = set()
    for path in candidates:
        built = host.read_bytes(path) if path else None
        if built is not None:
            answers.add("same" if built == content else "partial" if built.startswith(content) else "other")
    return next((answer for answer in ("same", "partial") if answer in answers), "other")


def _listed(host: Host, modules_dep: str, name: str) -> Optional[str]:
    content = host.read_bytes(modules_dep) or b""
    for match in re.finditer(rb"/" + re.escape(name.encode()) + rb"\.ko(?:\.\w+)?:", content):
        return content[content.rfind(b"\n", 0, match.start()) + 1:match.end() - 1].decode("utf-8", "replace")
    return None


def _in_tree(host: Host, package: Package, release: str, machine: str) -> Optional[InTree]:
    directory = f"/lib/modules/{release}"
    path = module_file(host, f"{directory}/{IN_TREE_DIR}", package.name)
    if path:
        return InTree(path, modinfo(host, path))
    archived = module_file(host, f"{package.root}/original_module/{release}/{machine}", package.name)
    origin = host.read_text(f"{archived}.origin") if archived else None
    if archived and origin and origin.startswith(f"{directory}/kernel/"):
        return InTree(archived, modinfo(host, archived), archived=True)
    if is_built_in(host, package, directory):
        prefix = f"{package.module}.alias="
        strings = (host.read_bytes(f"{directory}/modules.builtin.modinfo") or b"").decode("utf-8", "replace")
        aliases = [text[len(prefix):] for text in strings.split("\0") if text.startswith(prefix)]
        return InTree("built-in", ModInfo(aliases=vfio_aliases(aliases)))
    return None


def _missing_directories(host: Host, targets: Sequence[str]) -> tuple[str, ...]:
    """Those that a build may make, deepest first."""
    candidates = [f"/lib/modules/{release}/{place}" for release in targets for place in INSTALL_DIRS]
    return tuple(path for path in candidates if not host.is_dir(path))


def _loaded(host: Host, package: Package) -> Optional[Loaded]:
    directory = f"/sys/module/{package.module}"
    if not host.is_dir(directory):
        return None
    devices = [name for driver in host.listdir(f"{directory}/drivers") if driver.startswith("pci:")
               for name in host.listdir(f"{directory}/drivers/{driver}") if _DEVICE.fullmatch(name)]
    return Loaded(host.read_text(f"{directory}/srcversion"), int(host.read_text(f"{directory}/refcnt") or 0),
                  tuple(sorted(devices)))
