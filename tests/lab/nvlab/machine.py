# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The machine that runs the lab: its packages, its mirror, its architecture, its free space."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

from .errors import LabError, UsageError
from .steps import run_logged, say, step

DEBIAN_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}
TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "arch-test": "arch-test",
    "mkfs.ext4": "e2fsprogs",
    "sfdisk": "fdisk",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "gpgv": "gpgv",
}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
BUILD_SPACE = 6 << 30  # bytes: a root directory and a disk of about 1.5 GiB each, twice when a rebuild replaces one
RUN_SPACE = 2 << 30


def debian_arch() -> str:
    """Return Debian's name of this machine's architecture."""
    machine = platform.machine()
    if machine not in DEBIAN_ARCH:
        raise UsageError(f"This machine is {machine}; the lab runs on x86_64 and aarch64.")
    return DEBIAN_ARCH[machine]


def require_root() -> None:
    """Raise UsageError unless we are root: foreign roots, chroot and binfmt_misc need it."""
    if os.geteuid() != 0:
        raise UsageError("The lab builds root file systems and must run as root; use sudo.")


def require_space(directory: Path, needed: int) -> None:
    """Raise UsageError when the file system of ``directory`` has less than ``needed`` bytes free."""
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UsageError(f"{existing} has {free >> 20} MiB free and {needed >> 20} MiB are needed; free some space "
                         "or point NVGRACE_LAB_CACHE at a larger disk.")


def install_tools(log: Path) -> None:
    """Install the packages whose tools are missing, with apt, and say which."""
    search = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = {package for tool, package in TOOLS.items() if shutil.which(tool, path=search) is None}
    if not KEYRING.exists():
        missing.add("debian-archive-keyring")
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise LabError(f"{', '.join(sorted(missing))} missing and no apt-get here; install them by hand.")
    with step(f"install {', '.join(sorted(missing))} on this machine"):
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        run_logged(["apt-get", "update"], log, env)
        run_logged(["apt-get", "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300",
                    *sorted(missing)], log, env)


def pick_mirror(index_targets: str) -> str | None:
    """Choose Debian's main mirror from ``apt-get indextargets`` lines of "ORIGIN CODENAME URI".

    Returns None when the machine has none (an Ubuntu machine): mmdebstrap then uses its own default.
    """
    for line in index_targets.splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[0] == "Debian" and "security" not in fields[1] + fields[2]:
            return fields[2]
    return None


def debian_mirror() -> str | None:
    """Return the mirror that this machine's own apt uses for Debian, or None."""
    try:
        answer = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)", "Created-By: Packages"],
            check=True, capture_output=True, text=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        say(f"    apt-get indextargets: {error}; using mmdebstrap's default mirror")
        return None
    return pick_mirror(answer.stdout)
