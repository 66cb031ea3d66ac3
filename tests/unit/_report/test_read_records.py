# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories of records: what is no record is named with a reason, and never stops the report of the others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Callable

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.fleet import MAX_FILE, Problem, read_records
from ansible_collections.nvgrace.passthrough.tests.unit._report.records import report


def write(path: Path, host: str = "grace1") -> None:
    path.write_text(json.dumps(report(host)))


def sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(MAX_FILE + 1)


def at_the_limit(path: Path) -> None:
    path.write_text("[]".ljust(MAX_FILE))


ALIENS: list[tuple[str, Callable[[Path], object], str]] = [
    ("empty", lambda path: path.write_text(""), "it is not JSON (Expecting value: line 1 column 1 (char 0))."),
    ("half", lambda path: path.write_text('{"schema_version": 1'),
     "it is not JSON (Expecting ',' delimiter: line 1 column 21 (char 20))."),
    ("bytes", lambda path: path.write_bytes(b'"\xff"'),
     "it is not JSON ('utf-8' codec can't decode byte 0xff in position 1: invalid start byte)."),
    ("other", lambda path: path.write_text("{}"),
     "it is not the record of a host, which has schema_version and inventory_hostname."),
    ("huge", sparse, "it is larger than 8 MiB."),
    ("full", at_the_limit, "it is not a dictionary."),
    ("directory", lambda path: path.mkdir(), "it is not a regular file."),
    ("fifo", os.mkfifo, "it is not a regular file."),
    ("dangling link", lambda path: path.symlink_to("nowhere"), "it is not a regular file."),
    ("link to a device", lambda path: path.symlink_to("/dev/zero"), "it is not a regular file."),
    ("link to itself", lambda path: path.symlink_to(path), "it is not a regular file."),
]


@pytest.mark.parametrize(("make", "why"), [item[1:] for item in ALIENS], ids=[item[0] for item in ALIENS])
def test_what_is_no_record_is_named(tmp_path: Path, make: Callable[[Path], object], why: str) -> None:
    make(tmp_path / "alien.json")
    write(tmp_path / "grace1.json")
    records, problems = read_records([tmp_path])
    assert [record.host for record in records] == ["grace1"]
    assert problems == [Problem("alien.json", f"The file is not in this report: {why}")]


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "[" + "7" * 5000 + "]"])
def test_what_a_parser_may_choke_on_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "alien.json").write_text(text)
    records, (problem,) = read_records([tmp_path])
    assert records == []
    assert problem.why.startswith("The file is not in this report: it is not ") and problem.why.endswith(".")


def test_a_link_to_a_record_is_read(tmp_path: Path) -> None:
    write(tmp_path / "grace1")
    (tmp_path / "link.json").symlink_to("grace1")
    assert [record.host for record in read_records([tmp_path])[0]] == ["grace1"]


def test_all_directories_are_read_and_other_files_are_none_of_ours(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / f"{name}.json", name)
        (tmp_path / name / f"{name}.txt").write_text("text")
        (tmp_path / name / ".report-1234").write_text("half a rec")
    records, problems = read_records([tmp_path / "two", tmp_path / "one"])
    assert ([record.host for record in records], problems) == (["two", "one"], [])
    assert read_records([]) == ([], [])


def test_the_name_of_a_file_is_shown_without_what_is_unfit(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\x1b.json")).write_text("{}")
    _records, (problem,) = read_records([tmp_path])
    assert problem.name == "\ufffd\ufffd.json"


@pytest.mark.parametrize(("name", "reason"), [("absent", "No such file or directory"), ("file", "Not a directory")])
def test_a_directory_that_cannot_be_read(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PassthroughError) as caught:
        read_records([tmp_path / name])
    assert caught.value.message == (f"The directory {tmp_path / name} with the records of the hosts cannot be read: "
                                    f"{reason}.")


@pytest.mark.parametrize("method", ["is_file", "read_bytes"])
def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """is_file raises where the directory may be listed and not searched, read_bytes where the file is another's."""
    def refuse(_path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    write(tmp_path / "grace1.json")
    monkeypatch.setattr(Path, method, refuse)
    assert read_records([tmp_path]) == (
        [], [Problem("grace1.json", "The file is not in this report: it cannot be read: Permission denied.")])
