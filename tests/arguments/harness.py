# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs main() of a module in a child process, with the host in a directory, and sees every write of the child."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core import runner
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio import look
from ansible_collections.nvgrace.passthrough.tests.unit._domain.fake_libvirt import FakeHost as FakeLibvirtHost
from ansible_collections.nvgrace.passthrough.tests.unit._gpu.fake_sysfs import RESOURCE_GH, VARIANT, FakeHost
from ansible_collections.nvgrace.passthrough.tests.unit._vfio.fake_kernel import FakeKernel, hopper_regions

GPU = "0009:01:00.0"
SECONDS = 120
_STARTING = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pty.spawn")
_PATHS = {"os.mkdir": 1, "os.rmdir": 1, "os.remove": 1, "os.chmod": 1, "os.chown": 1, "os.truncate": 1, "os.mkfifo": 1,
          "os.mknod": 1, "os.utime": 1, "os.setxattr": 1, "shutil.rmtree": 1, "os.rename": 2, "os.link": 2,
          "os.symlink": 2}
_RELATIVE = ("os.remove", "os.rmdir")
# The log of the made-up kernel, and the lock of the modules: every run leaves them, and no run minds them.
TRACES = ("/log", os.path.dirname(runner.LOCK_FILE), runner.LOCK_FILE)
# Programs of the made-up host: they do nothing and succeed.
_PROGRAMS = ("dkms", "make", "gcc", "depmod", "modprobe", "modinfo", "virsh", "update-initramfs", "update-grub")


@dataclass
class Outcome:
    """What a run left: all that it printed, writes outside of the host and programs started on this machine
    (``outside``), the changed files of the host, the exit status."""

    output: str
    outside: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    status: int = 0

    @property
    def result(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.output)
        return loaded


class MadeUpHost:
    """A Grace host with one bound GPU in a directory, which is made anew whenever a run has changed it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._fresh()

    def _fresh(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        self.host = FakeHost(self.root)
        self.libvirt = FakeLibvirtHost(self.root)
        self.host.add_function(GPU, group=11, driver=VARIANT, resource=RESOURCE_GH, config=bytes(4096))
        self.host.write("/proc/sys/kernel/arch", "aarch64\n")
        self.host.write("/etc/os-release", 'ID=debian\nVERSION_ID="13"\n')
        self.host.write("/proc/cmdline", "root=/dev/vda rw quiet\n")
        for program in _PROGRAMS:
            self.host.write(f"/usr/sbin/{program}")
            os.chmod(self.root / "usr/sbin" / program, 0o755)
        (self.root / "kernel").mkdir()
        self.kernel = FakeKernel(self.root / "kernel", hopper_regions())
        self._before = self._manifest()

    def run(self, main: Callable[[], None], arguments: dict[str, Any], libvirt: bool = False) -> Outcome:
        """Runs main() with these arguments as Ansible would; with ``libvirt`` virsh answers, and no other program."""
        with tempfile.TemporaryDirectory() as scratch:
            output, writes = Path(scratch, "output"), Path(scratch, "writes")
            output.touch()
            writes.touch()
            pid = os.fork()
            if pid == 0:
                self._child(main, arguments, output, writes, self.libvirt if libvirt else self.host)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            outcome = Outcome(output.read_text(encoding="utf-8", errors="surrogateescape"),
                              writes.read_text(errors="replace").splitlines(), status=status)
        after = self._manifest()
        outcome.changed = sorted(name for name in {*self._before, *after} if self._before.get(name) != after.get(name))
        if set(outcome.changed) - set(TRACES):
            self._fresh()
        else:
            self._before = after
        return outcome

    def _child(self, main: Callable[[], None], arguments: dict[str, Any], output: Path, writes: Path,
               host: Host) -> None:
        status = 3
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(SECONDS)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            stream = os.open(output, os.O_WRONLY | os.O_APPEND)
            os.dup2(stream, 1)
            os.dup2(stream, 2)
            # open for as long as the child lives
            sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
            sys.stderr = sys.stdout
            runner.Host = lambda: host  # type: ignore[assignment,misc]
            runner.require_root = lambda: None
            runner.LOCK_SECONDS = 1
            look.Kernel = lambda: self.kernel  # type: ignore[assignment,misc]
            basic.AnsibleModule.log = lambda *_arguments, **_keywords: None
            with patch_module_args(arguments):
                self._watch(os.open(writes, os.O_WRONLY | os.O_APPEND))
                main()
            status = 0
        except SystemExit as leave:
            status = int(leave.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)

    def _watch(self, log: int) -> None:
        """Notes each write outside of the host's directory and each program that is started on this machine."""
        inside = os.path.realpath(self.root) + "/"

        def note(text: str) -> None:
            os.write(log, text.encode("utf-8", "replace").replace(b"\n", b"\\n") + b"\n")

        def hook(event: str, values: tuple[Any, ...]) -> None:
            if event in _STARTING:
                note(f"{event} {str(values[0])[:200]}")
            elif event == "open":
                path, mode, flags = values
                writing = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
                if writing or (isinstance(mode, str) and set(mode) & set("wax+")):
                    check(event, path)
            elif event in _PATHS:
                # shutil.rmtree and TemporaryDirectory remove relative to an open directory
                handles = [value for value in values[_PATHS[event]:] if isinstance(value, int) and value > 2]
                base = os.readlink(f"/proc/self/fd/{handles[-1]}") if event in _RELATIVE and handles else ""
                for path in values[:_PATHS[event]]:
                    check(event, path if isinstance(path, int) else os.path.join(base, os.fsdecode(path)))

        def check(event: str, path: Any) -> None:
            if isinstance(path, int):
                return
            # a symbolic link is judged by where it stands: its target may be anything
            directory, name = os.path.split(os.fsdecode(path))
            real = os.path.join(os.path.realpath(directory or "."), name)
            if not (real + "/").startswith(inside) and real != os.devnull:
                note(f"{event} {real[:200]}")

        sys.addaudithook(hook)

    def _manifest(self) -> dict[str, tuple[int, int]]:
        found = {}
        for directory, names, files in os.walk(self.root):
            for name in [*names, *files]:
                path = os.path.join(directory, name)
                info = os.lstat(path)
                folder = name in names and not os.path.islink(path)
                found[path[len(str(self.root)):]] = (0, 0) if folder else (info.st_size, info.st_mtime_ns)
        return found
