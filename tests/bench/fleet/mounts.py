# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mount namespaces of simulated hosts. The process that calls this is in a mount namespace of its own, so that nothing
of it is left when it ends, however it ends."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
MS_BIND, MS_REC = 0x1000, 0x4000
MNT_DETACH = 2
BORROWED = "opt/borrowed"  # NAME.from is a link to what is mounted on NAME beside it
_CLONE_NEWNS = 0x20000
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_OWN = "NVGRACE_FLEET_NAMESPACE"


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError."""
    _check(_LIBC.mount(source.encode(), target.encode(), kind.encode() or None, flags, data.encode() or None),
           f"mount {source} on {target}")


def detach(target: str) -> None:
    """Takes a mount out of this namespace, also where something of it is in use still. Raises OSError."""
    _check(_LIBC.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def enter_own_namespace() -> None:
    """Runs this program again in a mount namespace of its own, unless it is there already. Needs root."""
    if _OWN in os.environ:
        return
    if os.geteuid() != 0:
        sys.exit("Simulated hosts are mount namespaces: run this as root.")
    os.environ[_OWN] = "1"
    os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv])


def make_namespace(layers: Sequence[Path], directory: Path) -> str:
    """A namespace whose root is ``layers``, the first on top, over this machine's root, with what is written kept in
    ``directory``; all are on one file system that is not the root's. The last layer has the files of /proc. What is
    returned is a path of the namespace, as nsenter takes one.

    This process keeps the namespace by an open file: Linux 6.18 now and then refuses to mount one (EINVAL).
    """
    for name in ("upper", "work", "root"):
        (directory / name).mkdir(parents=True)
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(done[1])
        _become_host(layers, directory, ready[1], done[0])
    os.close(ready[1])
    try:
        message = os.read(ready[0], 4096).decode()
        if message != "ok":
            raise OSError(f"{directory.name} cannot be made: {message or 'its process ended'}")
        return f"/proc/{os.getpid()}/fd/{os.open(f'/proc/{child}/ns/mnt', os.O_RDONLY | os.O_CLOEXEC)}"
    finally:
        for end in (ready[0], done[0], done[1]):
            os.close(end)
        os.waitpid(child, 0)


def _become_host(layers: Sequence[Path], directory: Path, ready: int, done: int) -> None:
    """The child: tells the parent when all is mounted, and stays until that has taken hold of the namespace."""
    status = 1
    try:
        _mount_root(layers, directory)
        os.write(ready, b"ok")
        status = 0
        os.read(done, 1)
    except OSError as error:
        os.write(ready, str(error).encode())
    finally:
        os._exit(status)


def _mount_root(layers: Sequence[Path], directory: Path) -> None:
    _check(_LIBC.unshare(_CLONE_NEWNS), "unshare")
    root = str(directory / "root")
    mount("overlay", root, "overlay", 0,
          f"lowerdir={':'.join(map(str, layers))}:/,upperdir={directory / 'upper'},workdir={directory / 'work'}")
    mount("/proc", f"{root}/proc", "", MS_BIND | MS_REC)
    tree = layers[-1]
    for link in sorted((tree / BORROWED).glob("*.from")):
        mount(str(link.readlink()), f"{root}/{BORROWED}/{link.stem}", "", MS_BIND)
    for parent, _directories, names in os.walk(tree / "proc"):
        for name in names:
            path = os.path.join(parent, name)
            target = f"{root}/proc/{os.path.relpath(path, tree / 'proc')}"
            if os.path.exists(target):
                mount(path, target, "", MS_BIND)
    os.chdir(root)
    # The old root ends up over the new one, and goes.
    _check(_LIBC.syscall(_SYS_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    detach(".")
