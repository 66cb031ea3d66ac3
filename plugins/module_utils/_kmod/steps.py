# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps that change a host: DKMS calls and the few repairs that DKMS leaves to a human."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from functools import partial
from typing import Optional

from .._core.errors import CommandError, PassthroughError
from .._core.host import CommandResult, Host
from .._core.journal import StateFile
from .._core.plan import Call, RunCommand, Step
from .facts import Package, Record
from .reader import STATE_NAME, list_files
from .source import SourceTree

LOG_LINES = 40
_EXCLUDED = 77
_TIMED_OUT = (124, 137)


class DkmsSteps:
    """Makes the steps for one package. ``build_seconds`` fills while they are carried out."""

    def __init__(self, package: Package, build_timeout: int) -> None:
        self.package = package
        self.build_timeout = build_timeout
        self.build_seconds: dict[str, float] = {}

    def write_source(self, tree: SourceTree) -> Step:
        text = f"write {len(tree.files)} files to {self.package.source_dir} (SHA-256 {tree.sha256})"
        return Call(text, partial(_write_source, self.package, tree))

    def write_stub(self, version: str) -> Step:
        package = Package(self.package.name, version)
        return Call(f"write {package.source_dir}/dkms.conf (the source is gone, DKMS needs it to remove the module)",
                    partial(_write_stub, package))

    def save_record(self, record: Optional[Record], why: str) -> Step:
        return Call(f"{why} in the state file {STATE_NAME}.json", partial(_save_record, self.package.name, record))

    def add(self, version: str) -> Step:
        return RunCommand(("dkms", "add", "-m", self.package.name, "-v", version))

    def remove(self, version: str, release: Optional[str] = None) -> Step:
        which = ("--all",) if release is None else ("-k", release)
        argv = ("dkms", "remove", "-m", self.package.name, "-v", version, *which)
        return RunCommand(argv, timeout=self.build_timeout)

    def build(self, release: str) -> Step:
        argv = ("dkms", "build", "-m", self.package.name, "-v", self.package.version, "-k", release)
        return Call(f"run {' '.join(argv)}", partial(self._build, argv, release))

    def install(self, release: str) -> Step:
        # Without --force DKMS keeps a copy of the same or a newer version, for instance the kernel's own.
        argv = ("dkms", "install", "-m", self.package.name, "-v", self.package.version, "-k", release, "--force")
        return RunCommand(argv, timeout=self.build_timeout)

    def copy_built(self, built: str, installed: str) -> Step:
        return Call(f"copy {built} to {installed} (the installed file differs from the build)",
                    partial(_copy_built, built, installed))

    def depmod(self, release: str) -> Step:
        return RunCommand(("depmod", "-a", release), "modules.dep does not match the installed module",
                          timeout=self.build_timeout)

    def unload(self) -> Step:
        return RunCommand(("modprobe", "-r", self.package.module))

    def delete(self, path: str, why: str) -> Step:
        return Call(f"delete {path} ({why})", partial(_delete, path))

    def delete_empty(self, directories: Sequence[str]) -> Step:
        return Call("delete the directories below /lib/modules that a build has made and that are empty",
                    partial(_delete_empty, tuple(directories)))

    def delete_root(self) -> Step:
        return Call(f"give back what DKMS has moved to {self.package.root} and delete that directory",
                    partial(_delete_root, self.package))

    def _build(self, argv: tuple[str, ...], release: str, host: Host) -> None:
        started = time.monotonic()
        # coreutils' timeout ends make and the compilers too, which would outlive a killed dkms.
        bounded = ("timeout", "--kill-after=30", str(self.build_timeout), *argv)
        result = host.run(bounded, timeout=self.build_timeout + 90, ok=())
        seconds = round(time.monotonic() - started, 1)
        if result.rc != 0:
            timed_out = result.rc in _TIMED_OUT and seconds >= self.build_timeout
            raise _build_error(host, self.package, release, result, self.build_timeout if timed_out else None)
        self.build_seconds[release] = seconds


def _build_error(host: Host, package: Package, release: str, result: CommandResult,
                 exceeded: Optional[int]) -> PassthroughError:
    """``exceeded`` is the limit in seconds that the build ran into, None where it ended by itself."""
    what = f"{package.name} {package.version}"
    if result.rc == _EXCLUDED:
        return CommandError(f"{what} is not meant for kernel {release}: a BUILD_EXCLUSIVE directive in its dkms.conf "
                            "leaves that kernel out; name a kernel that it admits.", rc=result.rc)
    log = f"{package.tree}/build/make.log"
    lines = (host.read_text(log) or f"{result.stdout}\n{result.stderr}").splitlines()
    tail = lines[-LOG_LINES:]
    signal = -result.rc if result.rc < 0 else result.rc - 128
    if exceeded is not None:
        reason = f"it did not end within {exceeded} seconds (build_timeout)"
    elif signal > 0:
        reason = f"it was killed by signal {signal}, perhaps for want of memory"
    else:
        reason = next((line.strip() for line in tail if "error:" in line.lower()), result.last_line())
    return CommandError(f"{what} could not be built for kernel {release}: {reason} - the end of {log} is in "
                        "build_log_tail.", rc=result.rc, build_log=log, build_log_tail=tail)


def _write_source(package: Package, tree: SourceTree, host: Host) -> None:
    _delete(package.source_dir, host)
    for path, content in tree.files:
        # Archives and copies lose the executable bit of scripts; their first line does not.
        mode = 0o755 if content.startswith(b"#!") else 0o644
        host.write_atomic(f"{package.source_dir}/{path}", content, mode)


def _write_stub(package: Package, host: Host) -> None:
    lines = (f'PACKAGE_NAME="{package.name}"', f'PACKAGE_VERSION="{package.version}"',
             f'BUILT_MODULE_NAME[0]="{package.name}"', 'DEST_MODULE_LOCATION[0]="/updates/dkms"')
    host.write_atomic(f"{package.source_dir}/dkms.conf", ("\n".join(lines) + "\n").encode())


def _save_record(name: str, record: Optional[Record], host: Host) -> None:
    state = StateFile(host, STATE_NAME)
    value = state.load()
    value.pop(name, None)
    if record is not None:
        value[name] = record.as_json()
    state.save(value)


def _copy_built(built: str, installed: str, host: Host) -> None:
    content = host.read_bytes(built)
    if content is None:
        raise PassthroughError(f"{built} vanished: run again.")
    host.write_atomic(installed, content)


def _delete(path: str, host: Host) -> None:
    real = host.path(path)
    if os.path.isdir(real) and not os.path.islink(real):
        shutil.rmtree(real)
    else:
        host.remove(path)


def _delete_empty(directories: Sequence[str], host: Host) -> None:
    for directory in directories:
        if host.is_dir(directory) and not host.listdir(directory):
            os.rmdir(host.path(directory))


def _delete_root(package: Package, host: Host) -> None:
    for path in list_files(host, f"{package.root}/original_module").values():
        if not path.endswith(".origin"):
            _give_back(path, host)
    _delete(package.root, host)


def _give_back(archived: str, host: Host) -> None:
    """What ``dkms remove`` does, which needs the build for it."""
    origin = (host.read_text(f"{archived}.origin") or "").splitlines()
    if not origin or not origin[0].startswith("/lib/modules/") or host.lexists(origin[0]):
        raise PassthroughError(f"{archived} is a module that DKMS moved away, and its place is unknown or taken: move "
                               "it back by hand or delete it, then run again.")
    os.makedirs(os.path.dirname(host.path(origin[0])), exist_ok=True)
    shutil.move(host.path(archived), host.path(origin[0]))
