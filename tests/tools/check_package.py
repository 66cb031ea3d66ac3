# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the collection twice, in two places, and compares the bytes; looks at each file of it; installs the tarball
in a directory of its own and loads what a user would load there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import build_collection
from gate import ROOT, finish, tracked

BIN = Path(sys.executable).parent
FQCN = "nvgrace.passthrough"
WANTED = ("files/kmod/dkms.conf", "playbooks/site.yml", "playbooks/restore.yml", "plugins/modules/gpu_driver.py",
          "roles/gpu_domain/templates/domain.xml.j2", "SECURITY.md", "CONTRIBUTING.md", "LICENSES/GPL-2.0-only.txt")
# All that may be in it: whatever is not like one of these is junk.
ALLOWED = re.compile("|".join((
    r"(MANIFEST|FILES)\.json", r"(README|CHANGELOG|CONTRIBUTING|SECURITY|CODE_OF_CONDUCT)\.md", r"REUSE\.toml",
    r"LICENSES/[\w.-]+\.txt", r"meta/(runtime|execution-environment)\.yml",
    r"requirements\.txt", r"bindep\.txt", r"examples/([\w.-]+/)+\w[\w.-]*\.(yml|md)",
    r"changelogs/(config|changelog)\.yaml", r"changelogs/fragments/[\w.-]+\.yml", r"docs/[\w-]+\.md",
    r"docs/schemas/[\w.-]+", r"docs/pictures/[\w-]+\.svg",
    r"files/kmod/(Kbuild|Makefile|README\.md|dkms\.conf|\w+\.([ch]|sh))",
    r"playbooks/\w+\.yml", r"playbooks/(tasks|vars)/\w+\.yml", r"plugins/(\w+/)+\w+\.py",
    r"roles/\w+/README\.md", r"roles/\w+/(defaults|handlers|meta|tasks|vars)/\w+\.yml",
    r"roles/\w+/templates/[\w.]+\.j2", r"roles/gpu_report/files/fleet\.(css|js)", "tools/fleet-report",
)))
MAX_BYTES = 2_000_000


def ansible(*argv: str, collections: str) -> str:
    """Runs one of ansible's programs and returns its output; a failure ends the check with the reason."""
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": collections}
    done = subprocess.run([str(BIN / argv[0]), *argv[1:]], cwd=collections, env=environment, check=False,
                          capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def elsewhere(directory: Path) -> Path:
    """The tracked files in another place, with other times and permissions, in a repository without history."""
    copy = directory / "elsewhere"
    for name in tracked():
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
        target.chmod(0o700 if os.access(ROOT / name, os.X_OK) and (ROOT / name).stat().st_mode & 0o100 else 0o600)
        os.utime(target, (86400, 86400))
    for argv in (["git", "init", "--quiet", "."], ["git", "add", "--all", "--force"]):
        subprocess.run(argv, cwd=copy, check=True)
    return copy


def build_problems(tarball: Path, again: Path) -> list[str]:
    with tarfile.open(tarball) as members:
        files = [member.name for member in members.getmembers() if not member.isdir()]
    problems = [f"{name} should not be in it" for name in files if not ALLOWED.fullmatch(name)]
    size = tarball.stat().st_size
    if size > MAX_BYTES:
        problems.append(f"the tarball has {size} bytes, more than {MAX_BYTES}")
    if tarball.read_bytes() != again.read_bytes():
        problems.append("built again in another place it has other bytes")
    return problems


def group_problems(directory: Path) -> list[str]:
    """A report written by an installed module whose only option comes by the action group."""
    defaults = {f"group/{FQCN}.passthrough": {"dest": str(directory / "reports")}}
    play = {"hosts": "localhost", "gather_facts": False, "module_defaults": defaults,
            "tasks": [{"name": "Write a report", f"{FQCN}.host_report": {}}]}
    playbook = directory / "group.yml"
    playbook.write_text(json.dumps([play]))
    ansible("ansible-playbook", "-i", "localhost,", "-c", "local", str(playbook), collections=str(directory))
    return [] if (directory / "reports" / "localhost.json").exists() else ["the action group gives no option"]


def main() -> int:
    os.environ["SOURCE_DATE_EPOCH"] = str(build_collection.moment(ROOT))
    with tempfile.TemporaryDirectory() as directory:
        tarball = build_collection.build(Path(directory))
        again = build_collection.build(Path(directory, "again"), elsewhere(Path(directory)))
        problems = build_problems(tarball, again)
        size = tarball.stat().st_size
        ansible("ansible-galaxy", "collection", "install", str(tarball), "--force", "--offline", "-p", directory,
                collections=directory)
        installed = Path(directory, "ansible_collections", *FQCN.split("."))
        problems += [f"{name} is missing" for name in WANTED if not (installed / name).exists()]
        ansible("ansible-galaxy", "collection", "verify", "--offline", FQCN, collections=directory)
        ansible("ansible-playbook", "--syntax-check", "-i", "localhost,", f"{FQCN}.site", collections=directory)
        ansible("ansible-doc", "--type", "module", f"{FQCN}.region_verify", collections=directory)
        problems += group_problems(Path(directory))
    return finish(problems, f"{tarball.name}: {size} bytes, ")


if __name__ == "__main__":
    sys.exit(main())
