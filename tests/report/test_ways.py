# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways to a fleet's report: the playbook, and the program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fleets import record, write

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = str(ROOT / "tools" / "fleet-report")


def play(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "gh200-1,gh200-2,", "playbooks/report.yml",
            "-e", f"gpu_report_dir={directory}", *options]
    return subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, text=True,
                          env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"), "ANSIBLE_NOCOLOR": "1"})


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, PROGRAM, *arguments], check=False, capture_output=True, text=True)


def test_the_playbook_writes_each_format_and_names_hosts_without_a_record(tmp_path: Path) -> None:
    write(tmp_path, record("gh200", "gh200-1"))
    formats = json.dumps({"report_formats": ["html", "markdown", "prometheus"]})
    done = play(tmp_path, "-e", formats)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verified: 1" in done.stdout and f"{tmp_path}/fleet.html" in done.stdout
    assert "gh200-2" in (tmp_path / "fleet.md").read_text()
    assert 'outcome="verified"} 1' in (tmp_path / "fleet.prom").read_text()
    assert "There is no record of this host yet." in (tmp_path / "fleet.html").read_text()


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    write(tmp_path, record("gh200", "gh200-1"))
    done = play(tmp_path, "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["0.json"]


@pytest.mark.parametrize(("options", "sentence"), [
    ((), "No record of a host is in"),
    (("-e", '{"report_formats": ["pdf"]}'), "value of formats must be one or more of"),
    (("-e", '{"report_formats": []}'), "at least one directory in src and one format in formats"),
])
def test_the_playbook_refuses_in_one_sentence(tmp_path: Path, options: tuple[str, ...], sentence: str) -> None:
    done = play(tmp_path, *options)
    assert done.returncode == 2
    assert sentence in " ".join(done.stdout.split()) + " ".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_the_program_refuses_in_one_sentence(tmp_path: Path) -> None:
    done = run(str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"fleet-report: No record of a host is in {tmp_path}: run site.yml first")
    done = run(str(tmp_path / "none"))
    assert done.returncode == 1 and "cannot be read: No such file or directory." in done.stderr


def test_a_bad_file_is_named_and_the_others_are_in_the_report(tmp_path: Path) -> None:
    write(tmp_path, record("gh200", "gh200-1"))
    (tmp_path / "alien.json").write_text('{"schema_version": 99, "inventory_hostname": "x"}')
    done = run(str(tmp_path), "--format", "markdown")
    assert done.returncode == 0
    assert "gh200-1" in done.stdout and "alien.json" in done.stdout and "schema_version is 99" in done.stdout


def test_the_output_is_replaced_whole(tmp_path: Path) -> None:
    write(tmp_path, record("gh200", "gh200-1"))
    target = tmp_path / "deep" / "fleet.prom"
    for _ in range(2):
        assert run(str(tmp_path), "--format", "prometheus", "--output", str(target)).returncode == 0
    assert [path.name for path in target.parent.iterdir()] == ["fleet.prom"]
    assert target.stat().st_mode & 0o777 == 0o644
