# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of digest.py: what a failed scenario says last."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import digest

PLAY = """\
  \x1b[2m│\x1b[0m TASK [Bind the GPU] ****
  \x1b[2m│\x1b[0m \x1b[31mfatal: [grace-1]: UNREACHABLE! => \x1b[0m
  \x1b[2m│\x1b[0m \x1b[31m    changed: false\x1b[0m
  \x1b[2m│\x1b[0m \x1b[31m    msg: timed out\x1b[0m
  \x1b[2m│\x1b[0m
  \x1b[2m│\x1b[0m TASK [What may fail] ****
  \x1b[2m│\x1b[0m fatal: [grace-2]: FAILED! =>
  \x1b[2m│\x1b[0m     msg: as expected
  \x1b[2m│\x1b[0m ...ignoring
  \x1b[2m│\x1b[0m PLAY RECAP
"""


def of(text: str) -> list[str]:
    found = digest.Digest()
    for line in text.splitlines():
        found.add(line)
    return found.lines()


def test_the_failure_its_task_and_its_message() -> None:
    assert of(PLAY) == ["TASK [Bind the GPU] ****", "fatal: [grace-1]: UNREACHABLE! =>", "    changed: false",
                        "    msg: timed out"]


def test_the_last_failures_and_the_head_of_a_long_one() -> None:
    shown = of("".join(f"failed: [h] (item={number}) =>\n" + "    more\n" * 20 for number in range(5)))
    assert [line for line in shown if line.startswith("failed")] == [f"failed: [h] (item={n}) =>" for n in (2, 3, 4)]
    assert shown.count("    more") == 3 * (digest.LINES - 1)
    assert shown[-1] == "    (and 7 lines more)"


def test_a_command_is_shown_as_it_runs_and_its_status_returned(tmp_path: Path,
                                                               capfd: pytest.CaptureFixture[str]) -> None:
    status, failures = digest.run(["sh", "-c", "echo 'fatal: [h]: FAILED! =>'; echo '  msg: no' >&2; exit 4"], tmp_path)
    assert (status, failures) == (4, ["fatal: [h]: FAILED! =>", "  msg: no"])
    assert capfd.readouterr().out == "fatal: [h]: FAILED! =>\n  msg: no\n"


def test_a_log_is_shown_as_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what this command adds, also to a log that it begins anew, up to its last word."""
    monkeypatch.setattr(digest, "TICK", 0.01)
    log = tmp_path / "log"
    log.write_text("of an earlier run\n")
    wait = f"until grep -q word {tmp_path}/seen 2>/dev/null; do sleep 0.01; done; rm {tmp_path}/seen"
    shown: list[bytes] = []

    def show(data: bytes) -> None:
        shown.append(data)
        if data:
            (tmp_path / "seen").write_text("word")

    monkeypatch.setattr(digest, "show", show)
    script = f"echo one >> {log}; {wait}; echo 2 > {log}; {wait}; printf 3 >> {log}; test ${digest.SHOWN_LOG} = {log}"
    status, _failures = digest.run(["sh", "-c", script], tmp_path, log)
    assert (status, b"".join(shown)) == (0, b"one\n2\n3")


def test_the_end_of_a_run_ends_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest.Digest, "add", lambda *_: sys.exit(143))
    started = time.monotonic()
    with pytest.raises(SystemExit):
        digest.run(["sh", "-c", "echo; exec sleep 60"], tmp_path)
    assert time.monotonic() - started < 30
