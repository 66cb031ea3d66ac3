# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the collection, installs the tarball in a directory of its own, and loads what a user would load there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
FQCN = "nvgrace.passthrough"
WANTED = ("files/kmod/dkms.conf", "playbooks/site.yml", "playbooks/restore.yml", "plugins/modules/gpu_driver.py",
          "roles/gpu_domain/templates/domain.xml.j2", "LICENSES/GPL-2.0-only.txt")
UNWANTED = (".git", ".config", ".hypothesis", ".build", ".venv", "tests", "molecule", "Makefile")
MAX_BYTES = 2_000_000


def ansible(*argv: str, collections: str) -> str:
    """Runs one of ansible's programs and returns its output; a failure ends the check with the reason."""
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": collections}
    done = subprocess.run([str(BIN / argv[0]), *argv[1:]], cwd=collections, env=environment, check=False,
                          capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def main() -> int:
    with tempfile.TemporaryDirectory() as directory:
        ansible("ansible-galaxy", "collection", "build", str(ROOT), "--output-path", directory, collections=directory)
        (tarball,) = Path(directory).glob("*.tar.gz")
        size = tarball.stat().st_size
        ansible("ansible-galaxy", "collection", "install", str(tarball), "--force", "--offline", "-p", directory,
                collections=directory)
        installed = Path(directory, "ansible_collections", *FQCN.split("."))
        problems = [f"{name} is missing" for name in WANTED if not (installed / name).exists()]
        problems += [f"{name} should not be there" for name in UNWANTED if (installed / name).exists()]
        if size > MAX_BYTES:
            problems.append(f"the tarball has {size} bytes, more than {MAX_BYTES}")
        ansible("ansible-playbook", "--syntax-check", "-i", "localhost,", f"{FQCN}.site", collections=directory)
        ansible("ansible-doc", "--type", "module", f"{FQCN}.region_verify", collections=directory)
    for problem in problems:
        print(problem)
    print(f"{tarball.name}: {size} bytes, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
