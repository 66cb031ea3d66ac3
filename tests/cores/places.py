# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Interpreters of this machine, environments with one ansible-core each, and a checkout as ansible-test wants it.

All of it lies in .build/cores, and so does the home directory that ansible-test writes to. Environments stay for the
next run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from gate import ROOT, copy_tracked

WORK = ROOT / ".build" / "cores"
HOME = WORK / "home"
CHECKOUT = WORK / "ansible_collections" / "nvgrace" / "passthrough"
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13")  # of managed hosts
SHELLCHECK = Path(sys.executable).parent / "shellcheck"

# ansible-test fetches a script for pip from a host of its own; the interpreter's own pip does the same.
_GET_PIP = """\
import subprocess
import sys

subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
wanted = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.run([sys.executable, "-m", "pip", "install", *wanted], check=False).returncode)
"""


def answers(program: Path, version: str) -> bool:
    """Whether it is that version, with what a virtual environment needs. A shim of pyenv may be neither."""
    code = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([str(program), "-c", code], check=False, capture_output=True, text=True, timeout=60)
    except OSError:
        return False
    return done.returncode == 0 and done.stdout.strip() == version


def interpreter(version: str) -> Optional[Path]:
    """The first on PATH, then those of pyenv; None where there is none."""
    on_path = [Path(directory, f"python{version}") for directory in os.environ["PATH"].split(os.pathsep)]
    of_pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    return next((path for path in [*on_path, *of_pyenv] if path.exists() and answers(path, version)), None)


def environment(name: str, python: Path, packages: Sequence[str]) -> Path:
    """A virtual environment with these packages. CalledProcessError where they cannot be installed."""
    directory = WORK / f"venv-{name}"
    stamp = directory / "stamp"
    wanted = f"{python} {' '.join(packages)}"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(directory, ignore_errors=True)
        subprocess.run([str(python), "-m", "venv", str(directory)], check=True)
        subprocess.run([str(directory / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *packages],
                       check=True)
        stamp.write_text(wanted)
    return directory / "bin"


def prepare_home(pip_version: str) -> None:
    """A home directory with pip's settings of the user and the script that ansible-test would fetch."""
    cache = HOME / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / f"get_pip_{pip_version.replace('.', '_')}.py").write_text(_GET_PIP)
    for name in (".config/pip", ".pip"):
        settings, link = Path.home() / name, HOME / name
        link.parent.mkdir(exist_ok=True)
        if settings.exists() and not link.is_symlink():
            link.symlink_to(settings)


def prepare_checkout() -> None:
    """What git tracks here, as it is now, in a repository of its own: ansible-test wants the path and asks git."""
    shutil.rmtree(CHECKOUT, ignore_errors=True)
    copy_tracked(CHECKOUT, new=True)
    subprocess.run(["git", "init", "--quiet", "."], cwd=CHECKOUT, check=True)
    subprocess.run(["git", "add", "--all"], cwd=CHECKOUT, check=True)


def programs(name: str, own: Path, version: str) -> Path:
    """A directory for PATH with each interpreter that is here, the environment's own of its version, and shellcheck."""
    directory = WORK / f"bin-{name}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for other in {*PYTHONS, version}:
        found = own / f"python{other}" if other == version else interpreter(other)
        if found is not None:
            (directory / f"python{other}").symlink_to(found)
    (directory / "shellcheck").symlink_to(SHELLCHECK)
    return directory


def pure_ansible(core: Path) -> Path:
    """A directory for PYTHONPATH with what of ansible-core a managed host gets: module_utils and nothing else."""
    directory = WORK / "target" / "ansible"
    shutil.rmtree(directory.parent, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / "__init__.py").write_text("__version__ = 'of a managed host'\n")
    (source,) = core.parent.glob("lib/python3*/site-packages/ansible/module_utils")
    (directory / "module_utils").symlink_to(source)
    return directory.parent
