# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks here find what they are for, and the tarball is what it says."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from pathlib import Path

import build_collection
import check_reasons
import check_sizes
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOQA, SHELL, MYPY = "# no" + "qa", "# shell" + "check disable=", "# type: " + "ignore"


@pytest.mark.parametrize(("text", "found"), [
    (f"import a  {NOQA}: E402\n", ["x.py:1: E402 is switched off without a reason"]),
    (f"import a  {NOQA}\n", ["x.py:1: everything is switched off without a reason"]),
    (f"import a  {NOQA}: E402  (after the path is set)\n", []),
    (f"# after the path is set\nimport a  {NOQA}: E402\nimport b  {NOQA}: E402\n", []),
    (f"# after the path is set\nimport a  {NOQA}: E402\nimport b  {NOQA}: F401\n",
     ["x.py:3: F401 is switched off without a reason"]),
    (f"{SHELL}SC2086\n$a\n", ["x.py:1: SC2086 is switched off without a reason"]),
    (f"{SHELL}SC2046,SC2086 # lists of words\n$a\n{SHELL}SC2086\n$b\n", []),
    (f"- name: a  {NOQA}: var-naming[no-role-prefix]\n",
     ["x.py:1: var-naming[no-role-prefix] is switched off without a reason"]),
    (f"a()  {MYPY}[misc]\n", []),
])
def test_a_rule_is_switched_off_with_a_reason(text: str, found: list[str]) -> None:
    assert check_reasons.problems_of("x.py", text) == found


def test_what_mypy_reads_explains_its_ignores() -> None:
    name = "plugins/module_utils/_core/x.py"
    assert check_reasons.problems_of(name, f"a()  {MYPY}[misc]\n")
    assert not check_reasons.problems_of(name, f"a()  {MYPY}[misc]  # no types there\n")


@pytest.mark.parametrize(("line", "problems"), [("a.py pep8:E501 # a table", 0), ("a.py pep8:E501", 1),
                                                ("a.py pep8:E501 #", 1)])
def test_what_ansible_test_ignores_has_a_reason(line: str, problems: int) -> None:
    assert len(check_reasons.problems_of("tests/sanity/ignore-2.19.txt", line)) == problems


@pytest.mark.parametrize(("lines", "found"), [(60, 0), (61, 1)])
def test_a_long_function_is_found(lines: int, found: int) -> None:
    source = "class A:\n    def f(self):\n" + "        pass\n" * (lines - 1)
    assert len(list(check_sizes.long_functions(source))) == found


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A collection of one module, a program, and a file that git does not track."""
    source = tmp_path / "source"
    (source / "plugins" / "modules").mkdir(parents=True)
    (source / "galaxy.yml").write_text("namespace: a\nname: b\nversion: 1.0.0\nreadme: README.md\nauthors: [c]\n")
    (source / "README.md").write_text("b\n")
    (source / "plugins" / "modules" / "d.py").write_text("pass\n")
    (source / "run").write_text("#!/bin/sh\n")
    (source / "run").chmod(0o700)
    for argv in (["git", "init", "--quiet", "."], ["git", "add", "--all"]):
        subprocess.run(argv, cwd=source, check=True)
    (source / "notes.md").write_text("mine\n")
    return source


def contents(tarball: Path) -> dict[str, tuple[int, int, bytes]]:
    """Mode, time and bytes of each file."""
    with tarfile.open(tarball) as members:
        return {member.name: (member.mode, int(member.mtime), stream.read()) for member in members
                if (stream := members.extractfile(member))}


def test_the_tarball_says_what_it_has(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    found = contents(build_collection.build(tmp_path / "out", checkout))
    assert set(found) == {"MANIFEST.json", "FILES.json", "README.md", "plugins/modules/d.py", "run"}
    assert {name: mode for name, (mode, _time, _bytes) in found.items() if mode != 0o644} == {"run": 0o755}
    assert {time for _mode, time, _bytes in found.values()} == {1700000000}
    listed = found["FILES.json"][2]
    manifest = json.loads(found["MANIFEST.json"][2])
    assert manifest["file_manifest_file"]["chksum_sha256"] == hashlib.sha256(listed).hexdigest()
    sums = {entry["name"]: entry["chksum_sha256"] for entry in json.loads(listed)["files"]}
    assert sums["run"] == hashlib.sha256(found["run"][2]).hexdigest()


def test_the_time_is_the_last_commit_s(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert build_collection.moment(checkout) == 0
    commit = ["git", "-c", "user.name=a", "-c", "user.email=b@c", "commit", "--quiet", "-m", "d"]
    environment = {"PATH": "/usr/bin:/bin", "GIT_COMMITTER_DATE": "1600000000 +0"}
    subprocess.run(commit, cwd=checkout, check=True, env=environment)
    assert build_collection.moment(checkout) == 1600000000


def test_no_directory_is_named_as_a_module_beside_it() -> None:
    """ansible-test's way of importing prefers the directory."""
    assert [str(path) for path in ROOT.glob("tests/unit/**/*.py") if path.with_suffix("").is_dir()] == []
