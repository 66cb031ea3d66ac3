# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Journal and plans: the first state of a file is the original, and it comes back byte for byte."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core import plan as plans
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.journal import STATE_DIR, Journal, StateFile
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.runner import diff_of, host_lock, plan_result


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "there").write_bytes(b"original \xff\n")
    (tmp_path / "etc" / "there").chmod(0o640)
    return Host(str(tmp_path))


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path.relative_to(root)): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
            for path in sorted(root.rglob("*"))}


def test_change_and_restore_leaves_the_tree_as_it_was(host: Host, tmp_path: Path) -> None:
    (tmp_path / "var" / "lib").mkdir(parents=True)
    before = tree(tmp_path)
    journal = Journal(host, "host")
    change = plans.Plan({}, {}, (
        plans.WriteFile("/etc/there", b"first"), plans.WriteFile("/etc/there", b"second"),
        plans.WriteFile("/etc/new/deeper/file", b"x"), plans.RemoveFile("/etc/there"),
    ))
    assert plans.apply_plan(host, change, journal)[0] == "write /etc/there"
    assert journal.paths() == ["/etc/new/deeper/file", "/etc/there"]
    assert oct(os.stat(tmp_path / STATE_DIR.lstrip("/")).st_mode & 0o777) == "0o700"
    back = plans.Plan({}, {}, tuple(plans.RestoreFile(path) for path in journal.paths()))
    plans.apply_plan(host, back, journal)
    assert tree(tmp_path) == before


def test_journal_keeps_the_first_state_across_runs(host: Host) -> None:
    Journal(host, "host").remember("/etc/there")
    host.write_atomic("/etc/there", b"changed")
    Journal(host, "host").remember("/etc/there")
    original = Journal(host, "host").original("/etc/there")
    assert original is not None and original.content == b"original \xff\n" and original.mode == 0o640


def test_a_directory_stays_that_was_there_or_that_others_use_now(host: Host, tmp_path: Path) -> None:
    (tmp_path / "etc" / "empty").mkdir()
    journal = Journal(host, "host")
    for path in ("/etc/empty/a", "/etc/made/a", "/etc/shared/a"):
        plans.apply_plan(host, plans.Plan({}, {}, (plans.WriteFile(path, b"x"),)), journal)
    (tmp_path / "etc" / "shared" / "other").write_bytes(b"theirs")
    for path in journal.paths():
        journal.restore(path)
    assert {name.name for name in (tmp_path / "etc").iterdir()} == {"there", "empty", "shared"}
    assert [name.name for name in (tmp_path / "etc" / "shared").iterdir()] == ["other"]


def test_state_files_are_for_root_alone_and_their_directory_goes_with_the_last(host: Host, tmp_path: Path) -> None:
    one, other = StateFile(host, "one"), StateFile(host, "other")
    one.save({"a": 1})
    other.save({"b": 2})
    assert oct(os.stat(tmp_path / one.path.lstrip("/")).st_mode & 0o777) == "0o600"
    one.save({})
    assert host.listdir(STATE_DIR) == ["other.json"]
    other.save({})
    assert not host.is_dir(STATE_DIR)


def test_a_journal_without_mode_and_owner_gives_the_usual_ones_back(host: Host, tmp_path: Path) -> None:
    StateFile(host, "host").save({Journal.KEY: {"/etc/there": {"content": "eA=="}}})
    original = Journal(host, "host").original("/etc/there")
    assert original is not None
    assert (original.content, original.mode, original.uid, original.gid) == (b"x", 0o644, 0, 0)


def test_files_are_readable_and_commands_must_end_with_0_where_nothing_else_is_said(host: Host, tmp_path: Path) -> None:
    journal = Journal(host, "host")
    plans.apply_step(host, plans.WriteFile("/etc/new", b"x"), journal)
    assert oct(os.stat(tmp_path / "etc" / "new").st_mode & 0o777) == "0o644"
    for name, status in (("good", 0), ("bad", 1)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / name).chmod(0o755)
    plans.apply_step(host, plans.RunCommand(("/good",)), None)
    with pytest.raises(PassthroughError, match="bad"):
        plans.apply_step(host, plans.RunCommand(("/bad",)), None)


def test_an_error_of_the_system_in_a_step_is_a_sentence(host: Host) -> None:
    def fail(_host: Host) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(PassthroughError, match="^Could not fill the disk: .*No space left on device") as raised:
        plans.apply_plan(host, plans.Plan({}, {}, (plans.Call("be quiet", lambda _host: None),
                                                   plans.Call("fill the disk", fail))))
    assert raised.value.details == {"actions": ["be quiet"], "changed": True}


def test_unknown_path_is_nothing_to_restore(host: Host) -> None:
    journal = Journal(host, "host")
    journal.restore("/etc/there")
    assert host.read_bytes("/etc/there") == b"original \xff\n"
    assert journal.original("/etc/there") is None


@pytest.mark.parametrize(("content", "message"), [
    (b"{half", "is not valid JSON"), (b"[]", "does not hold a JSON object"),
])
def test_damaged_state_is_refused_and_left_alone(host: Host, content: bytes, message: str) -> None:
    state = StateFile(host, "host")
    host.write_atomic(state.path, content)
    with pytest.raises(PassthroughError, match=message):
        state.load()
    assert host.read_bytes(state.path) == content


def test_state_that_cannot_be_read_is_not_taken_for_none(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk, once: the next save would write over what the host was before us."""
    state = StateFile(host, "host")
    state.save({"host": {"arguments_added": ["a"]}})
    with monkeypatch.context() as patch:
        patch.setattr(host, "read_bytes", lambda path, limit=-1: None)
        with pytest.raises(PassthroughError, match="is there and cannot be read"):
            state.load()
    assert state.load() == {"host": {"arguments_added": ["a"]}}


@pytest.mark.parametrize("name", ["../x", ".x", "a/b"])
def test_state_file_name_stays_in_its_directory(host: Host, name: str) -> None:
    with pytest.raises(PassthroughError, match="cannot be the name of a state file"):
        StateFile(host, name)


def test_failure_half_way_says_what_was_done(host: Host) -> None:
    def explode(_host: Host) -> None:
        raise PassthroughError("It broke.")

    change = plans.Plan({}, {}, (plans.WriteFile("/etc/a", b"1"), plans.Call("explode", explode)))
    with pytest.raises(PassthroughError, match="It broke") as caught:
        plans.apply_plan(host, change, Journal(host, "host"))
    assert caught.value.details == {"actions": ["write /etc/a"], "changed": True}


def test_file_step_without_a_journal_is_refused(host: Host) -> None:
    with pytest.raises(PassthroughError, match="without a journal"):
        plans.apply_plan(host, plans.Plan({}, {}, (plans.WriteFile("/etc/a", b"1"),)))
    assert not host.exists("/etc/a")


def test_refusal_of_the_kernel_is_one_sentence(host: Host) -> None:
    step = plans.WriteSysfs("/sys/nothing/bind", "0000:00:10.0", "bind")
    with pytest.raises(PassthroughError, match=r"refused to write 0000:00:10.0 to /sys/nothing/bind \(bind\)"):
        plans.apply_plan(host, plans.Plan({}, {}, (step,)))


@pytest.mark.parametrize(("step", "text"), [
    (plans.RunCommand(("depmod", "-a"), "module index"), "run depmod -a (module index)"),
    (plans.RunCommand(("depmod",)), "run depmod"),
    (plans.WriteSysfs("/sys/x", "\n"), "write newline to /sys/x"),
    (plans.RestoreFile("/etc/a"), "restore /etc/a"),
])
def test_steps_describe_themselves(step: plans.Step, text: str) -> None:
    assert step.describe() == text


def test_plan_result_has_diff_and_actions() -> None:
    change = plans.Plan({"a": 1}, {"a": 2}, (plans.RemoveFile("/etc/a"),))
    result = plan_result(change, change.actions())
    assert result["changed"] and result["actions"] == ["remove /etc/a"]
    assert json.loads(result["diff"]["after"]) == {"a": 2}
    assert diff_of("x\n", "y\n") == {"before": "x\n", "after": "y\n"}


def test_second_run_is_refused_while_the_first_holds_the_lock(host: Host) -> None:
    with host_lock(host), pytest.raises(PassthroughError, match="Another run"), host_lock(host, seconds=0):
        raise AssertionError("two runs at once")


def test_file_that_is_forgotten_stays_as_it_is(host: Host, tmp_path: Path) -> None:
    journal = Journal(host, "host")
    journal.remember("/etc/there")
    journal.remember("/etc/new")
    host.write_atomic("/etc/there", b"changed")
    journal.forget("/etc/there")
    journal.forget("/etc/never")
    assert journal.paths() == ["/etc/new"]
    assert (tmp_path / "etc" / "there").read_bytes() == b"changed"
    journal.forget("/etc/new")
    assert not (tmp_path / STATE_DIR.lstrip("/")).exists()


def hold_lock(root: Path, log: Path, seconds: float) -> int:
    """A process that takes the lock, logs that it begins and ends, and is its id."""
    pid = os.fork()
    if pid == 0:
        with host_lock(Host(str(root)), seconds=30):
            for word in ("begins", "ends"):
                with log.open("a") as stream:
                    stream.write(f"{os.getpid()} {word}\n")
                time.sleep(seconds)
        os._exit(0)
    return pid


def test_runs_at_once_wait_for_each_other(tmp_path: Path) -> None:
    log = tmp_path / "log"
    pids = [hold_lock(tmp_path / "root", log, 0.15) for _number in range(4)]
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [word for _pid, word in lines] == ["begins", "ends"] * 4
    assert all(lines[number][0] == lines[number + 1][0] for number in range(0, 8, 2))


def test_the_second_run_refuses_in_the_end_and_names_the_first(tmp_path: Path) -> None:
    log = tmp_path / "log"
    pid = hold_lock(tmp_path / "root", log, 3)
    while not log.exists():
        time.sleep(0.01)
    with pytest.raises(PassthroughError, match=rf"Another run of nvgrace.passthrough \(process {pid}\) has held"), \
            host_lock(Host(str(tmp_path / "root")), seconds=0.3):
        raise AssertionError("two runs at once")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with host_lock(Host(str(tmp_path / "root")), seconds=0):
        pass  # a run that was killed holds nothing


def test_a_child_that_outlives_the_run_does_not_keep_the_lock(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    with host_lock(host):
        pid = os.fork()
        if pid == 0:
            time.sleep(30)
            os._exit(0)
    try:
        with host_lock(host, seconds=0):
            pass
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "run" / "nvgrace-passthrough.lock").symlink_to("../precious")
    with pytest.raises(OSError), host_lock(Host(str(tmp_path))):
        raise AssertionError("locked through a link")
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_the_lock_sweeps_what_killed_runs_left_in_the_state_directory(host: Host) -> None:
    host.write_atomic(f"{STATE_DIR}/.nvgrace-host.json.4194999", b"half")
    with host_lock(host):
        assert not host.is_dir(STATE_DIR)
