# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Journal and plans: the first state of a file is the original, and it comes back byte for byte."""

from __future__ import annotations

import json
import os
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
