# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The cache: entries that exist whole or not at all, named after a hash of what went into them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError
from .processes import end_build
from .steps import say

# Others keep things in this cache, too (the roots of the kernel module's build): only these are ours to remove.
BUILD, KERNELS, LABS = "build", "kernels", "labs"
TEMPORARY = {BUILD: "lab-tmp.", KERNELS: "lab-kernel-tmp."}


def default_root() -> Path:
    """Return where the cache lives: $NVGRACE_LAB_CACHE, else below the user's cache directory."""
    chosen = os.environ.get("NVGRACE_LAB_CACHE")
    if chosen:
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base).absolute() / "nvgrace-passthrough"


def digest(*parts: bytes | str) -> str:
    """Hash the inputs of an entry; the length before each part keeps ("ab", "c") and ("a", "bc") apart."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        sha.update(len(data).to_bytes(8, "little") + data)
    return sha.hexdigest()[:12]


def mounts_below(directory: Path, mountinfo: str) -> list[str]:
    """Return the mount points at or below ``directory``, deepest first, from the text of /proc/self/mountinfo."""
    found = []
    for line in mountinfo.splitlines():
        point = line.split(" ")[4].encode().decode("unicode_escape")
        if point == str(directory) or point.startswith(f"{directory}/"):
            found.append(point)
    return sorted(found, key=len, reverse=True)


def remove_tree(directory: Path) -> None:
    """Remove a directory tree, after unmounting what an interrupted build left mounted in it.

    Raises LabError when something stays mounted: removing through a bind mount would delete the machine's own files.
    """
    mountinfo = Path("/proc/self/mountinfo")
    for point in mounts_below(directory, mountinfo.read_text()):
        subprocess.run(["umount", point], check=False)
    left = mounts_below(directory, mountinfo.read_text())
    if left:
        raise LabError(f"{left[0]} is still mounted and in use; end what uses it, then run 'lab clean'.")
    if directory.is_dir():
        shutil.rmtree(directory)
    else:
        directory.unlink(missing_ok=True)


def _discard(temporary: Path) -> None:
    """Remove an unfinished entry, and before it whatever still writes to it."""
    end_build(temporary)
    remove_tree(temporary)


@dataclass(frozen=True)
class Cache:
    """A directory of finished entries, temporary directories (TEMPORARY), the lab's key and the labs' state."""

    root: Path

    @property
    def labs(self) -> Path:
        """Return the directory that holds one directory per lab."""
        return self.root / "labs"

    @property
    def key(self) -> Path:
        """Return the private key of the labs, whether it exists or not."""
        return self.root / "id_ed25519"

    def entry(self, name: str) -> Path:
        """Return the path of a finished entry, whether it exists or not."""
        return self.root / name

    def new_log(self, name: str) -> Path:
        """Return an empty log for a build; it outlives a build that failed."""
        log = self.root / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        return log

    @contextlib.contextmanager
    def lock(self, purpose: str) -> Iterator[None]:
        """Hold one of the cache's locks: BUILD and KERNELS for minutes, LABS for the moment that a change takes."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / f"{purpose}.lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"    waiting for another command that holds {self.root / purpose}.lock")
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def remove_leftovers(self, purpose: str) -> None:
        """Remove what an interrupted build left. Call it with the lock of this purpose held."""
        for path in self.root.glob(f"{TEMPORARY[purpose]}*"):
            say(f"    removing {path.name}, left by an interrupted build")
            _discard(path)

    def provide(self, name: str, build: Callable[[Path], None], purpose: str = BUILD) -> Path:
        """Return the entry ``name``, building it into a temporary directory and renaming that when it is missing."""
        entry = self.entry(name)
        if entry.is_dir():
            return entry
        with self.lock(purpose):
            if entry.is_dir():
                return entry
            self.remove_leftovers(purpose)
            temporary = self.root / f"{TEMPORARY[purpose]}{name}"
            temporary.mkdir()
            try:
                build(temporary)
            except BaseException:
                _discard(temporary)
                raise
            temporary.rename(entry)
        return entry
