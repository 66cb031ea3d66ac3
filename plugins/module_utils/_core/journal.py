# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""State directory of the collection on a host: the journal of original files and the record of each device."""

from __future__ import annotations

import base64
import json
import os
from typing import Any, Optional

from .errors import PassthroughError
from .host import FileState, Host

STATE_DIR = "/var/lib/nvgrace-passthrough"


class StateFile:
    """One JSON object in the state directory, written atomically and readable by root only."""

    def __init__(self, host: Host, name: str) -> None:
        if "/" in name or name.startswith("."):
            raise PassthroughError(f"{name!r} cannot be the name of a state file.")
        self.host = host
        self.path = f"{STATE_DIR}/{name}.json"

    def load(self) -> dict[str, Any]:
        """The object, empty where there is no file. A file that cannot be read is an error and is left alone."""
        data = self.host.read_bytes(self.path)
        if data is None and self.host.lexists(self.path):
            data = self.host.read_bytes(self.path)  # another run may have written it in between
            if data is None:
                raise PassthroughError(f"{self.path} is there and cannot be read: look for errors of its file system "
                                       "and for a security module that denies it, then run again.")
        if data is None:
            return {}
        try:
            value = json.loads(data)
        except ValueError as error:
            raise PassthroughError(f"{self.path} is not valid JSON ({error}): move it away, then look at what the "
                                   "host holds before the next run.") from error
        if not isinstance(value, dict):
            raise PassthroughError(f"{self.path} does not hold a JSON object: move it away before the next run.")
        return value

    def save(self, value: dict[str, Any]) -> None:
        """Writes the object; an empty one removes the file, and the directory with the last file."""
        if value:
            self.host.write_atomic(self.path, json.dumps(value, indent=2, sort_keys=True).encode() + b"\n", 0o600)
            os.chmod(self.host.path(STATE_DIR), 0o700)
            return
        self.host.remove(self.path)
        _remove_if_empty(self.host)


def sweep_state(host: Host) -> None:
    """Removes what killed runs left in the state directory, and the directory where nothing else is in it."""
    if host.is_dir(STATE_DIR):
        host.sweep_directory(STATE_DIR)
        _remove_if_empty(host)


def _remove_if_empty(host: Host) -> None:
    if host.is_dir(STATE_DIR) and not host.listdir(STATE_DIR):
        os.rmdir(host.path(STATE_DIR))


class Journal:
    """Original content, mode and owner of each file that an area changed, kept until the file is given back.

    ``name`` is the area ("host", "kmod", a PCI address). A path is remembered once: the first state is the original.
    Directories that did not exist are remembered too and removed again when they are empty.
    """

    KEY = "files"

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.state = StateFile(host, name)

    def paths(self) -> list[str]:
        return sorted(self.state.load().get(self.KEY, {}))

    def original(self, path: str) -> Optional[FileState]:
        """The state before our first change, or None where we never changed the file."""
        entry = self.state.load().get(self.KEY, {}).get(path)
        return None if entry is None else _decode(entry)

    def remember(self, path: str) -> None:
        """Keeps the present state of a file, unless one is kept already."""
        value = self.state.load()
        files = value.setdefault(self.KEY, {})
        if path in files:
            return
        files[path] = _encode(self.host.file_state(path))
        files[path]["new_directories"] = self._missing_directories(path)
        self.state.save(value)

    def restore(self, path: str) -> None:
        """Gives the file back as it was and forgets it. Does nothing for a path that is not in the journal."""
        value = self.state.load()
        entry = value.get(self.KEY, {}).get(path)
        if entry is None:
            return
        original = _decode(entry)
        if original.content is None:
            self.host.remove(path)
        else:
            self.host.write_atomic(path, original.content, original.mode, (original.uid, original.gid))
        for directory in entry.get("new_directories", []):
            if self.host.is_dir(directory) and not self.host.listdir(directory):
                os.rmdir(self.host.path(directory))
        del value[self.KEY][path]
        if not value[self.KEY]:
            del value[self.KEY]
        self.state.save(value)

    def forget(self, path: str) -> None:
        """Leaves the file as it stands and no longer remembers what it was."""
        value = self.state.load()
        if value.get(self.KEY, {}).pop(path, None) is None:
            return
        if not value[self.KEY]:
            del value[self.KEY]
        self.state.save(value)

    def _missing_directories(self, path: str) -> list[str]:
        missing = []
        directory = os.path.dirname(path)
        while directory not in ("", "/") and not self.host.is_dir(directory):
            missing.append(directory)
            directory = os.path.dirname(directory)
        return missing


def _encode(state: FileState) -> dict[str, Any]:
    content = None if state.content is None else base64.b64encode(state.content).decode("ascii")
    return {"content": content, "mode": state.mode, "uid": state.uid, "gid": state.gid}


def _decode(entry: dict[str, Any]) -> FileState:
    content = entry.get("content")
    return FileState(None if content is None else base64.b64decode(content), entry.get("mode", 0o644),
                     entry.get("uid", 0), entry.get("gid", 0))
