# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host adapter: files are whole or untouched, programs are bounded, paths stay inside the root."""

from __future__ import annotations

import grp
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import CommandError, PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.host import CommandResult, Host


@pytest.mark.parametrize("path", ["etc/x", "/etc/../x", "/etc/a\0b", ""])
def test_path_outside_the_root_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(PassthroughError, match="is not a plain absolute path"):
        Host(str(tmp_path)).path(path)


def test_write_atomic_replaces_content_and_mode(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    host.write_atomic("/a/b/file", b"one", 0o600)
    host.write_atomic("/a/b/file", b"two", 0o640)
    state = host.file_state("/a/b/file")
    assert (state.content, state.mode) == (b"two", 0o640)
    assert os.listdir(tmp_path / "a" / "b") == ["file"]


def test_write_atomic_leaves_nothing_behind_on_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(str(tmp_path))
    host.write_atomic("/file", b"old")

    def refuse(*_arguments: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no"):
        host.write_atomic("/file", b"new")
    assert os.listdir(tmp_path) == ["file"]
    assert host.read_bytes("/file") == b"old"


def test_missing_things_read_as_none_or_empty(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    assert host.read_bytes("/nothing") is None
    assert host.read_text("/nothing") is None
    assert host.readlink_name("/nothing") is None
    assert host.listdir("/nothing") == []
    assert not host.file_state("/nothing").exists
    host.remove("/nothing")


def test_file_state_refuses_a_directory(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    with pytest.raises(PassthroughError, match="is not a regular file"):
        Host(str(tmp_path)).file_state("/dir")


@pytest.mark.parametrize("target", ["file", "nowhere"])
def test_file_state_refuses_a_link_that_a_write_would_replace(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(PassthroughError, match="/link exists and is not a regular file: move it away first"):
        Host(str(tmp_path)).file_state("/link")


def program(tmp_path: Path, name: str, text: str) -> Host:
    path = tmp_path / "usr" / "bin" / name
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return Host(str(tmp_path))


def test_run_returns_both_outputs(tmp_path: Path) -> None:
    host = program(tmp_path, "tool", "echo out $1; echo err >&2; exit 3")
    result = host.run(["tool", "a b"], ok=(3,))
    assert (result.rc, result.stdout, result.stderr) == (3, "out a b\n", "err\n")


@pytest.mark.parametrize(("text", "timeout", "message"), [
    ("echo 'it broke' >&2; exit 1", 10.0, "tool failed with status 1: it broke"),
    ("exec sleep 5", 0.2, "tool did not end within 0 seconds"),
])
def test_run_fails_in_one_sentence(tmp_path: Path, text: str, timeout: float, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        program(tmp_path, "tool", text).run(["tool"], timeout=timeout)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_time_out_ends_the_children_of_the_program_too(tmp_path: Path) -> None:
    host = program(tmp_path, "tool", f"sleep 60 & echo $! > {tmp_path}/child; wait")
    with pytest.raises(CommandError, match="did not end within"):
        host.run(["tool"], timeout=0.5)
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(child)


def test_run_names_a_program_that_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="The program virsh is not installed"):
        Host(str(tmp_path)).run(["virsh", "list"])


def test_run_accepts_any_status_with_an_empty_ok(tmp_path: Path) -> None:
    assert program(tmp_path, "tool", "exit 9").run(["tool"], ok=()).rc == 9


@pytest.mark.parametrize(("stdout", "stderr", "expected"), [
    ("a\nb\n\n", "", "b"), ("a", "x\ny\n", "y"), ("", "", "no output"),
])
def test_last_line(stdout: str, stderr: str, expected: str) -> None:
    assert CommandResult(("x",), 1, stdout, stderr).last_line() == expected


def test_run_hands_standard_input_over() -> None:
    assert Host("/").run(["cat"], stdin="one\ntwo\n").stdout == "one\ntwo\n"
    assert Host("/").run(["cat"]).stdout == ""


def test_head_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abcdef")
    assert Host(str(tmp_path)).read_bytes("/file", 3) == b"abc"
    assert Host(str(tmp_path)).read_bytes("/file") == b"abcdef"


def write_and_be_killed(root: Path, path: str) -> None:
    """A writer that SIGKILL ends when the new content is written and the old file is still there."""
    pid = os.fork()
    if pid == 0:
        os.replace = lambda *_arguments: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        Host(str(root)).write_atomic(path, b"new")
        os._exit(0)
    _pid, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status)


def test_what_a_killed_writer_leaves_is_removed_by_whoever_writes_or_removes_the_file_next(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    for next_one in (lambda: host.write_atomic("/etc/file", b"newer"), lambda: host.remove("/etc/file")):
        host.write_atomic("/etc/file", b"old")
        host.write_atomic("/etc/other", b"other")
        write_and_be_killed(tmp_path, "/etc/file")
        assert host.read_bytes("/etc/file") == b"old"
        assert len(host.listdir("/etc")) == 3
        next_one()
        assert set(host.listdir("/etc")) - {"file"} == {"other"}


def test_sweeping_leaves_writers_that_are_alive_and_files_of_others(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        names = [f".nvgrace-file.{other.pid}", ".nvgrace-file.notes", "file"]
        for name in [*names, ".nvgrace-file.4194999"]:
            (tmp_path / name).write_bytes(b"")
        host.sweep_directory("/")
        assert host.listdir("/") == sorted(names)
        other.communicate(b"\n")
    host.sweep_directory("/nowhere")


def test_a_program_that_is_stuck_in_the_kernel_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as the caller can tell, a program whose pipes nobody closes: its child has a session of its own."""
    host = program(tmp_path, "tool", f"setsid sleep 30 & echo $! > {tmp_path}/child; sleep 30")
    monkeypatch.setattr("ansible_collections.nvgrace.passthrough.plugins.module_utils._core.host._KILL_SECONDS", 0.3)
    started = time.monotonic()
    with pytest.raises(CommandError, match="is still blocked in the kernel as process") as caught:
        host.run(["tool"], timeout=0.5)
    assert time.monotonic() - started < 10
    assert caught.value.details["stuck_pid"] > 0
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_groups_of_the_host(tmp_path: Path) -> None:
    first = grp.getgrall()[0]
    assert Host(str(tmp_path)).group_id(first.gr_name) == first.gr_gid
    assert Host(str(tmp_path)).group_id("no-such-group-here") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_node_is_given_to_root_and_a_group(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    (tmp_path / "node").write_bytes(b"")
    host.set_owner("/node", 12345, 0o660)
    assert host.owner_of("/node") == (12345, 0o660)
    assert host.owner_of("/nothing") is None
