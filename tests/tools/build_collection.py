#!/usr/bin/env python3
# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the collection so that the same sources give the same bytes: usage: build_collection.py DIRECTORY [SOURCE]

ansible-galaxy builds it from what git tracks in SOURCE (this checkout by default). It stores the times of files, the
time of the build and the order of the directory, so the tarball is then written anew: names in order, one time
(SOURCE_DATE_EPOCH, else that of the last commit, else 0), modes 0644, 0755 for what is a program. Prints its path.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from gate import ROOT, copy_tracked

BIN = Path(sys.executable).parent
MANIFEST, FILES = "MANIFEST.json", "FILES.json"


def moment(source: Path) -> int:
    """Seconds of the epoch that all members of the tarball carry."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is not None:
        return int(given)
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=source, check=False, capture_output=True, text=True)
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip() else 0


def galaxy_build(source: Path, work: Path) -> Path:
    """ansible-galaxy's tarball of the tracked files. CalledProcessError where it refuses."""
    copy = work / "source"
    copy_tracked(copy, source)
    argv = [str(BIN / "ansible-galaxy"), "collection", "build", str(copy), "--output-path", str(work)]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    (tarball,) = work.glob("*.tar.gz")
    return tarball


def document(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def ordered(contents: dict[str, bytes]) -> dict[str, bytes]:
    """The same with the list of files in order, and its new hash in the manifest."""
    files = json.loads(contents[FILES])
    files["files"].sort(key=lambda entry: entry["name"])
    manifest = json.loads(contents[MANIFEST])
    listed = document(files)
    manifest["file_manifest_file"]["chksum_sha256"] = hashlib.sha256(listed).hexdigest()
    return {**contents, FILES: listed, MANIFEST: document(manifest)}


def rewrite(tarball: Path, target: Path, seconds: int) -> None:
    """The members of a tarball of ansible-galaxy in TARGET, as the same sources always give them."""
    with tarfile.open(tarball) as old:
        members = {member.name: member for member in old.getmembers()}
        contents = {name: stream.read() for name, member in members.items() if (stream := old.extractfile(member))}
    contents = ordered(contents)
    with target.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, seconds) as packed, \
            tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as new:
        for name in sorted(members, key=lambda name: (name not in (MANIFEST, FILES), name)):
            member = tarfile.TarInfo(name)
            content = contents.get(name, b"")
            member.type, member.size, member.mtime = members[name].type, len(content), seconds
            member.mode = 0o755 if member.isdir() or members[name].mode & 0o100 else 0o644
            new.addfile(member, io.BytesIO(content))


def build(directory: Path, source: Path = ROOT) -> Path:
    """Builds the tarball of SOURCE in DIRECTORY and returns its path."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        tarball = galaxy_build(source, Path(work))
        rewrite(tarball, directory / tarball.name, moment(source))
        return directory / tarball.name


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: build_collection.py DIRECTORY [SOURCE]")
    print(build(*map(Path, sys.argv[1:])))
