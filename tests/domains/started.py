# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts twins with a suite's own libvirtd and QEMU, one after the other, and returns what their guests printed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from libvirt_root import HERE, LibvirtRoot

ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests" / "lab"))

from nvlab import cpio  # noqa: E402  (after the path is set)

DEBIAN_ARCH = {"aarch64": "arm64", "x86_64": "amd64"}
SECONDS = 240
_SETTINGS = ('user = "root"\ngroup = "root"\nsecurity_driver = "none"\nnamespaces = []\ncgroup_controllers = []\n'
             'remember_owner = 0\nstdio_handler = "file"\n')
# Each twin of /work/twins: NAME.seconds has the time until the guest was done, NAME.error what went wrong.
_START = f"""
cp /work/qemu.conf /etc/libvirt/qemu.conf
libvirtd -d -p /run/libvirtd.pid >/work/twins/libvirtd.log 2>&1
for try in 1 2 3 4 5 6 7 8 9 10; do virsh -q -c qemu:///system uri >/dev/null 2>&1 && break; sleep 1; done
for file in /work/twins/*.xml; do
    base=${{file%.xml}} begun=$(date +%s%N) name=$(sed -n 's|.*<name>\\(.*\\)</name>.*|\\1|p' $file | head -n 1)
    virsh -q -c qemu:///system create --validate $file >/dev/null 2>$base.error || continue
    left=$(({SECONDS} * 4))
    while ! grep -q GUEST-DONE $base.log && [ $left -gt 0 ]; do
        virsh -q -c qemu:///system domstate $name >/dev/null 2>&1 || break
        left=$((left - 1)); sleep 0.25
    done
    echo $((($(date +%s%N) - begun) / 1000000)) >$base.milliseconds
    virsh -q -c qemu:///system destroy $name >/dev/null 2>&1
done
kill $(cat /run/libvirtd.pid)
"""


@dataclass(frozen=True)
class Run:
    """``error`` is libvirt's refusal to start the twin, ``console`` what the guest wrote."""

    error: str
    console: str
    seconds: float


def guest_files() -> Path:
    """The directory with kernel and busybox for each architecture, in the root of trixie."""
    done = subprocess.run(["sh", str(HERE / "libvirt-root.sh"), "trixie"], check=True, capture_output=True, text=True)
    return Path(done.stdout.strip()) / "guest"


def log_path(name: str) -> str:
    """The console of a twin, as seen by its libvirt."""
    return f"/work/twins/{name}.log"


def start_twins(root: LibvirtRoot, guests: Path, twins: Mapping[str, str]) -> dict[str, Run]:
    """Starts each twin (name -> XML). ``guests`` has the kernel and busybox for each architecture."""
    work = root.work / "twins"
    work.mkdir()
    (root.work / "qemu.conf").write_text(_SETTINGS)
    (work / "disk.img").write_bytes(bytes(1 << 20))
    for machine, arch in DEBIAN_ARCH.items():
        shutil.copy(guests / arch / "vmlinuz", work / f"{machine}.kernel")
        members = {"init": cpio.Member((HERE / "guest-init").read_bytes(), 0o755),
                   "bin/busybox": cpio.Member((guests / arch / "busybox").read_bytes(), 0o755)}
        (work / f"{machine}.initrd").write_bytes(cpio.archive(members, ("dev", "proc", "sys")))
    for name, xml in twins.items():
        (work / f"{name}.xml").write_text(xml)
        (work / f"{name}.log").touch()
    root.run(_START)
    return {name: _result(work, name) for name in twins}


def _result(work: Path, name: str) -> Run:
    error = (work / f"{name}.error").read_text()
    console = (work / f"{name}.log").read_text(errors="replace")
    told = work / f"{name}.milliseconds"
    return Run(error, console, int(told.read_text()) / 1000 if told.exists() else 0.0)
