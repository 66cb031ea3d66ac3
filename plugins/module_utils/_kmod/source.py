# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The source of the kernel module as it travels: its files, one hash over them, dkms.conf, the table of PCI ids."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from .._core.errors import PassthroughError

MAX_SOURCE_BYTES = 4 * 1024 * 1024
"""A module's source has some 100 KiB; more than this is somebody else's directory."""

_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")
_ASSIGNMENT = re.compile(r"""^\s*([A-Z_]+)(?:\[0\])?=(?:"([^"]*)"|'([^']*)'|(\S*))\s*(?:\#.*)?$""", re.MULTILINE)
_VFIO_ID = re.compile(r"VFIO\w*\s*\(\s*(?:PCI_VENDOR_ID_NVIDIA|0x10de)\s*,\s*0x([0-9a-f]{4})\s*\)", re.IGNORECASE)
_VFIO_ALIAS = re.compile(r"vfio_pci:v0000([0-9A-F]{4})d0000([0-9A-F]{4})sv")


@dataclass(frozen=True)
class SourceTree:
    """Regular files, sorted by their path relative to the directory that holds dkms.conf."""

    files: tuple[tuple[str, bytes], ...]

    @property
    def sha256(self) -> str:
        """Hash over names and contents.

        The same as ``find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum`` in the directory, so that an
        operator can check a host without this collection.
        """
        lines = (f"{hashlib.sha256(content).hexdigest()}  {path}\n" for path, content in self.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def content(self, path: str) -> Optional[bytes]:
        return dict(self.files).get(path)

    def aliases(self) -> tuple[str, ...]:
        """The ``vfio_pci:`` aliases that a module built from this source will carry.

        Read from the entries of its id table, ``PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x....)``, for
        check mode on a host where nothing is built yet. The built module's own modinfo replaces it afterwards.
        """
        found = set()
        for path, content in self.files:
            if path.endswith((".c", ".h")):
                found.update(_VFIO_ID.findall(content.decode("utf-8", "replace")))
        return tuple(f"vfio_pci:v000010DEd0000{device.upper()}sv*sd*bc*sc*i*" for device in sorted(found))


@dataclass(frozen=True)
class DkmsConf:
    """The directives of dkms.conf that name what is built."""

    name: str
    version: str
    module: str


def make_tree(files: Mapping[str, bytes]) -> SourceTree:
    """A tree of files; raises PassthroughError for a name that could leave the directory and for too much data."""
    for path in files:
        if len(path) > 255 or not _PATH.fullmatch(path):
            raise PassthroughError(f"{path[:80]!r} cannot be the name of a source file: letters, digits, '.', '_', "
                                   "'+', '-' and '/' are allowed, and no part may begin with a dot.")
    size = sum(len(content) for content in files.values())
    if size > MAX_SOURCE_BYTES:
        raise PassthroughError(f"The module's source has {size} bytes, more than {MAX_SOURCE_BYTES}: check that "
                               "'source' names the directory of the kernel module.")
    return SourceTree(tuple(sorted(files.items())))


def pack(tree: SourceTree) -> str:
    """The tree as one short printable string: a module argument of many strings would be logged one by one."""
    text = json.dumps({path: base64.b64encode(content).decode("ascii") for path, content in tree.files})
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")


def unpack(payload: str, sha256: str) -> SourceTree:
    """The tree that ``pack`` made; raises PassthroughError unless it has the hash that the controller computed."""
    try:
        text = zlib.decompressobj().decompress(base64.b64decode(payload, validate=True), 2 * MAX_SOURCE_BYTES)
        files = {str(path): base64.b64decode(content, validate=True) for path, content in json.loads(text).items()}
    except (binascii.Error, zlib.error, ValueError, AttributeError, TypeError) as error:
        raise PassthroughError(f"The module's source arrived damaged ({error}): run again.") from error
    tree = make_tree(files)
    if tree.sha256 != sha256:
        raise PassthroughError(f"The module's source arrived with SHA-256 {tree.sha256}, {sha256} was sent: nothing "
                               "was written, run again.")
    return tree


def read_conf(tree: SourceTree) -> DkmsConf:
    """Package name, version and module name of dkms.conf; raises PassthroughError where one is missing."""
    content = tree.content("dkms.conf")
    if content is None:
        raise PassthroughError("The module's source has no dkms.conf: 'source' must name the directory that holds it.")
    values = {match[0]: match[1] or match[2] or match[3]
              for match in _ASSIGNMENT.findall(content.decode("utf-8", "replace"))}
    found = []
    for key in ("PACKAGE_NAME", "PACKAGE_VERSION", "BUILT_MODULE_NAME"):
        value = values.get(key, "")
        if not value or "$" in value:
            raise PassthroughError(f"dkms.conf gives {value!r} as {key}: a literal value is needed.")
        found.append(value)
    return DkmsConf(*found)


def ids_of(aliases: tuple[str, ...]) -> frozenset[str]:
    """The ``vendor:device`` ids, lower case, among a module's aliases."""
    matches = (_VFIO_ALIAS.match(alias) for alias in aliases)
    return frozenset(f"{match[1]}:{match[2]}".lower() for match in matches if match)
