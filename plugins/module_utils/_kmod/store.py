# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side: the directory with the modules that builders have exported.

``DIRECTORY/KERNEL/MACHINE/manifest.json`` and the module beside it, whose name has its hash. Several hosts may export
and be handed out at once: a manifest is replaced in one step, after its module is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from typing import Optional

from .._core.errors import PassthroughError
from .prebuilt import Prebuilt, from_json

MANIFEST = "manifest.json"


def read_store(directory: str) -> list[Prebuilt]:
    """All modules in the directory, none where it does not exist; raises PassthroughError for a damaged manifest."""
    found = []
    for kernel in _subdirectories(directory):
        for machine in _subdirectories(os.path.join(directory, kernel)):
            entry = _read_manifest(os.path.join(directory, kernel, machine, MANIFEST))
            if entry is not None:
                found.append(entry)
    return found


def _subdirectories(directory: str) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(directory) if entry.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise PassthroughError(f"{directory} on the controller cannot be read: {error.strerror}.") from error


def _read_manifest(path: str) -> Optional[Prebuilt]:
    content = _read(path)
    if content is None:
        return None
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    return from_json(value, path)


def read_content(directory: str, entry: Prebuilt) -> bytes:
    """A module's file; raises PassthroughError where it is gone or not what its manifest says."""
    path = os.path.join(_place(directory, entry), entry.file)
    content = _read(path)
    if content is None or hashlib.sha256(content).hexdigest() != entry.sha256:
        raise PassthroughError(f"{path} is not there, or is not the module of its manifest: delete {MANIFEST} beside "
                               "it and export the module again.")
    return content


def save(directory: str, entry: Prebuilt, content: Optional[bytes]) -> bool:
    """Keeps a module and its manifest; True where something was written. ``content`` is None where it is there.

    Raises PassthroughError for a module that arrived damaged and where the directory cannot be written.
    """
    place = _place(directory, entry)
    if content is not None and hashlib.sha256(content).hexdigest() != entry.sha256:
        raise PassthroughError(f"The module for kernel {entry.kernel} arrived damaged on the controller: run again.")
    manifest = json.dumps(entry.as_json(), indent=2, sort_keys=True).encode() + b"\n"
    try:
        if content is None and _read(os.path.join(place, MANIFEST)) == manifest:
            return False
        os.makedirs(place, exist_ok=True)
        if content is not None:
            _write(os.path.join(place, entry.file), content)
        _write(os.path.join(place, MANIFEST), manifest)
        for name in os.listdir(place):
            if name.endswith(".ko") and name != entry.file:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(place, name))
    except OSError as error:
        raise PassthroughError(f"{place} on the controller cannot be written: {error.strerror}.") from error
    return True


def _place(directory: str, entry: Prebuilt) -> str:
    return os.path.join(directory, entry.kernel, entry.machine)


def _read(path: str) -> Optional[bytes]:
    try:
        with open(path, "rb") as handle:
            return handle.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PassthroughError(f"{path} on the controller cannot be read: {error.strerror}.") from error


def _write(path: str, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(prefix=".nvgrace-", dir=os.path.dirname(path))
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
