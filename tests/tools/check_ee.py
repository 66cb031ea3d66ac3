# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The execution environment as far as no container engine is needed: ansible-builder accepts the definition and makes
the build context, the context's collections install in the way that the image's build does it, and what the builder
then asks pip and the package manager for is what the collection names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import build_collection
from gate import ROOT, finish

BIN = Path(sys.executable).parent
EXAMPLE = ROOT / "examples" / "execution-environment"
TARBALL = "nvgrace-passthrough.tar.gz"
INSTALL = "ansible-galaxy collection install"


def run(*argv: str, cwd: Path, **environment: str) -> str:
    """The output of a program; a failure ends the check with the reason."""
    done = subprocess.run([str(BIN / argv[0]), *argv[1:]], cwd=cwd, env={**os.environ, **environment}, check=False,
                          capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def requirements(path: Path) -> set[str]:
    """Those in a file of the collection, or of the builder, which notes behind each where it is from."""
    return {line.partition("#")[0].strip() for line in path.read_text().splitlines()} - {""}


def make_context(work: Path) -> Path:
    shutil.copytree(EXAMPLE, work, dirs_exist_ok=True)
    build_collection.build(work).rename(work / TARBALL)
    run("ansible-builder", "create", "--output-filename", "Containerfile", cwd=work)
    return work / "context"


def main() -> int:
    problems = []
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        context = make_context(work)
        steps = (context / "Containerfile").read_text()
        for step in ("WORKDIR /build", "COPY _build /build", INSTALL, "introspect.py introspect"):
            if step not in steps:
                problems.append(f"the Containerfile has no {step!r}")
        # what the Containerfile runs in /build, which _build is copied to
        installed = str(work / "installed")
        run("ansible-galaxy", "collection", "install", "-r", "requirements.yml", "--offline", "--collections-path",
            installed, cwd=context / "_build", ANSIBLE_COLLECTIONS_PATH=installed)
        found = {name: work / f"{name}.txt" for name in ("pip", "bindep")}
        run("python", str(context / "_build" / "scripts" / "introspect.py"), "introspect", installed,
            f"--write-pip={found['pip']}", f"--write-bindep={found['bindep']}", cwd=work)
        for kind, name in (("pip", "requirements.txt"), ("bindep", "bindep.txt")):
            wanted, asked = requirements(ROOT / name), requirements(found[kind])
            if asked != wanted:
                problems.append(f"{name} says {wanted}, and the builder asks {kind} for {asked}")
        run("ansible-playbook", "--syntax-check", "-i", "localhost,", "nvgrace.passthrough.site", cwd=work,
            ANSIBLE_COLLECTIONS_PATH=installed)
    return finish(problems, "execution environment: ")


if __name__ == "__main__":
    sys.exit(main())
