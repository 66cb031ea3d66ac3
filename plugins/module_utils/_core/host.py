# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adapter to the host: every file and every program that the collection touches goes through here."""

from __future__ import annotations

import contextlib
import grp
import os
import signal
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from .errors import CommandError, PassthroughError

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TEMPORARY = ".nvgrace-"
# After SIGKILL a process that is not stuck in the kernel is gone within moments.
_KILL_SECONDS = 2.0


@dataclass(frozen=True)
class CommandResult:
    """What a program left behind: exit status, and both outputs as text."""

    argv: tuple[str, ...]
    rc: int
    stdout: str
    stderr: str

    def last_line(self) -> str:
        """The last line that says something, errors first: usually the reason of a failure."""
        for text in (self.stderr, self.stdout):
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            if lines:
                return lines[-1]
        return "no output"


@dataclass(frozen=True)
class FileState:
    """A file as it stands on the host; ``content`` is None where there is no file. ``mode`` has the permission bits."""

    content: Optional[bytes]
    mode: int = 0o644
    uid: int = 0
    gid: int = 0

    @property
    def exists(self) -> bool:
        return self.content is not None


class Host:
    """The files and programs of one host. ``root`` is "/" in production and a directory tree in tests."""

    def __init__(self, root: str = "/") -> None:
        self.root = os.path.abspath(root)

    def path(self, path: str) -> str:
        """The real path of an absolute path of the host."""
        if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
            raise PassthroughError(f"{path!r} is not a plain absolute path.")
        return os.path.normpath(os.path.join(self.root, path.lstrip("/")))

    def exists(self, path: str) -> bool:
        return os.path.exists(self.path(path))

    def lexists(self, path: str) -> bool:
        return os.path.lexists(self.path(path))

    def is_dir(self, path: str) -> bool:
        return os.path.isdir(self.path(path))

    def listdir(self, path: str) -> list[str]:
        """Sorted names in a directory; empty where there is no such directory."""
        try:
            return sorted(os.listdir(self.path(path)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read_bytes(self, path: str, limit: int = -1) -> Optional[bytes]:
        """The file, or its first ``limit`` bytes; None where it does not exist or the kernel refuses the attribute."""
        try:
            with open(self.path(path), "rb", buffering=0 if limit >= 0 else -1) as handle:
                return handle.read(limit)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError:
            # sysfs attributes answer with EINVAL, EIO or ENODEV where a value is not available
            return None

    def read_text(self, path: str) -> Optional[str]:
        """The file as text without surrounding white space, or None."""
        data = self.read_bytes(path)
        return None if data is None else data.decode("utf-8", "replace").strip()

    def readlink_name(self, path: str) -> Optional[str]:
        """The last part of a symbolic link's target (sysfs: driver, iommu_group), or None."""
        try:
            return os.path.basename(os.readlink(self.path(path)))
        except OSError:
            return None

    def file_state(self, path: str) -> FileState:
        """Content and permissions of a regular file, for comparing and for the journal. A symbolic link is none: a
        write would put a file in its place, and restoring would not bring it back."""
        real = self.path(path)
        try:
            info = os.lstat(real)
        except (FileNotFoundError, NotADirectoryError):
            return FileState(None)
        if not stat.S_ISREG(info.st_mode):
            raise PassthroughError(f"{path} exists and is not a regular file: move it away first.")
        with open(real, "rb") as handle:
            return FileState(handle.read(), stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid)

    def write_atomic(self, path: str, content: bytes, mode: int = 0o644,
                     owner: Optional[tuple[int, int]] = None) -> None:
        """Writes a file so that a reader, or a crash, sees the old one or the new one and nothing between."""
        real = self.path(path)
        os.makedirs(os.path.dirname(real), exist_ok=True)
        self._sweep(real)
        temporary = f"{_temporary_prefix(real)}{os.getpid()}"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fchmod(stream.fileno(), mode)
                if owner is not None:
                    os.fchown(stream.fileno(), *owner)
                os.fsync(stream.fileno())
            os.replace(temporary, real)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise

    def remove(self, path: str) -> None:
        """Removes a file; one that is already gone is fine."""
        real = self.path(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(real)
        self._sweep(real)

    def sweep_directory(self, directory: str) -> None:
        """Removes what writers that were killed left in a directory, whatever file they were about to write."""
        for name in self.listdir(directory):
            if name.startswith(_TEMPORARY):
                self._sweep_one(self.path(f"{directory}/{name}"))

    def _sweep(self, real: str) -> None:
        """Removes what a writer of this file that was killed has left beside it."""
        directory, prefix = os.path.dirname(real), os.path.basename(_temporary_prefix(real))
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for name in os.listdir(directory):
                if name.startswith(prefix):
                    self._sweep_one(f"{directory}/{name}")

    @staticmethod
    def _sweep_one(temporary: str) -> None:
        pid = temporary.rpartition(".")[2]
        if pid.isdigit() and (int(pid) == os.getpid() or not os.path.exists(f"/proc/{pid}")):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)

    def group_id(self, name: str) -> Optional[int]:
        """Number of a group of the host, from whatever source it has its groups; None where there is no such group."""
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            return None

    def owner_of(self, path: str) -> Optional[tuple[int, int]]:
        """Group number and permission bits of a file or device node; None where there is none."""
        try:
            info = os.stat(self.path(path))
        except OSError:
            return None
        return info.st_gid, stat.S_IMODE(info.st_mode)

    def set_owner(self, path: str, gid: int, mode: int) -> None:
        """Gives a device node to root and a group. First the mode, so that at no time a wrong group may use it."""
        real = self.path(path)
        os.chmod(real, mode & 0o700)
        os.chown(real, 0, gid)
        os.chmod(real, mode)

    def write_sysfs(self, path: str, value: str) -> None:
        """One write(2) to a sysfs attribute; OSError passes to the caller, because its errno has a meaning there."""
        handle = os.open(self.path(path), os.O_WRONLY)
        try:
            os.write(handle, value.encode())
        finally:
            os.close(handle)

    def which(self, program: str) -> Optional[str]:
        """Absolute path of a program of the host, or None."""
        for directory in _SYSTEM_PATH.split(":"):
            candidate = f"{directory}/{program}"
            if os.access(self.path(candidate), os.X_OK):
                return candidate
        return None

    def run(self, argv: Sequence[str], timeout: float = 60, ok: Sequence[int] = (0,),
            cwd: Optional[str] = None, stdin: str = "") -> CommandResult:
        """Runs a program without a shell, in the C locale, with ``stdin`` as all of its standard input.

        Raises CommandError when it is not installed, runs out of ``timeout`` (seconds) or ends with a status outside
        ``ok``; an empty ``ok`` accepts every status.
        """
        program = argv[0] if argv[0].startswith("/") else self.which(argv[0])
        if program is None:
            raise CommandError(f"The program {argv[0]} is not installed on this host.", program=argv[0])
        result = self._run([self.path(program), *argv[1:]], tuple(argv), timeout, cwd, stdin)
        if ok and result.rc not in ok:
            raise CommandError(f"{' '.join(argv)} failed with status {result.rc}: {result.last_line()}",
                               argv=list(argv), rc=result.rc, stdout=result.stdout, stderr=result.stderr)
        return result

    @staticmethod
    def _run(real_argv: list[str], argv: tuple[str, ...], timeout: float, cwd: Optional[str],
             stdin: str) -> CommandResult:
        """The program in a session of its own, so that a time-out ends its children, too."""
        environment = {"PATH": _SYSTEM_PATH, "LC_ALL": "C.UTF-8", "HOME": os.environ.get("HOME", "/root")}
        try:
            process = subprocess.Popen(real_argv, stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=cwd,
                                       start_new_session=True)
        except OSError as error:
            raise CommandError(f"{argv[0]} could not be started: {error.strerror}.", argv=list(argv)) from error
        try:
            stdout, stderr = process.communicate(stdin.encode() or None, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            text = f"{' '.join(argv)} did not end within {timeout:.0f} seconds"
            try:
                process.communicate(timeout=_KILL_SECONDS)
            except subprocess.TimeoutExpired:
                raise CommandError(f"{text} and is still blocked in the kernel as process {process.pid}: see the "
                                   "kernel log (dmesg).", argv=list(argv), stuck_pid=process.pid) from error
            raise CommandError(f"{text}.", argv=list(argv)) from error
        return CommandResult(argv, process.returncode, stdout.decode("utf-8", "replace"),
                             stderr.decode("utf-8", "replace"))

    def kernel_release(self) -> str:
        """``uname -r`` of the host; in a test tree the content of /proc/sys/kernel/osrelease."""
        return self.read_text("/proc/sys/kernel/osrelease") or os.uname().release


def _temporary_prefix(real: str) -> str:
    """Where a file is prepared before it takes its name: beside it, so that the change is one rename. The name says
    for what and by which process, so that the next writer can tell what a killed one left."""
    directory, name = os.path.split(real)
    return f"{directory}/{_TEMPORARY}{name}."
