# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rolls site.yml out over the scenario's hosts as an operator does, and looks at what became of each: usage:
roll_out.py first|resume. A host may fail here, which a playbook of molecule's may not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LAB = str(ROOT / "tests" / "lab" / "lab")
REPORTS = ROOT / ".build" / "fleet"
GOOD, BAD, VICTIM = "fleet-gh200", "fleet-c2c", "fleet-gb200"
INVENTORIES = ["--inventory", "molecule/shared/inventory", "--inventory", "molecule/fleet/inventory"]
# A play reads these before it knows a host: from the command line, and not from the inventory
BATCHES = ["--extra-vars", "nvgrace_serial=100% nvgrace_max_fail_percentage=100"]
# What ansible-playbook says with its status: all well, hosts failed
WELL, FAILED = 0, 2
# What the check run told and the first run did, for the second
CHANGES = REPORTS / "changes"
# molecule shows what a command said when it has ended; tests/run shows this meanwhile
LOG = REPORTS / "roll-out.log"
# The mark of the scenario's own hook for a drained host, which a check run does not make and so does not find
UNDRAINED = "Say on the host that it works again"
# The tasks that undo what a host has that failed: one that lost its power is up again before all of them have failed
GIVEN_BACK = "nvgrace.passthrough.gpu_restore : "
BUILDING = "gpu_kmod : Install the kernel module]"


def say(line: str) -> None:
    """To the terminal and, with the time, into the log."""
    print(line, end="", flush=True)
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("a") as stream:
        stream.write(f"{time.strftime('%H:%M:%S')} {line}")


def playbook(name: str, *options: str) -> subprocess.Popen[str]:
    argv = ["ansible-playbook", name, *INVENTORIES, "--extra-vars", f"gpu_report_dir={REPORTS}", *BATCHES, *options]
    say(f"==> {' '.join(argv)}\n")
    # molecule asks for colours, between which changes() would find nothing
    environment = {**os.environ, "ANSIBLE_FORCE_COLOR": "false", "ANSIBLE_NOCOLOR": "true"}
    return subprocess.Popen(argv, cwd=ROOT, env=environment, text=True, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE)


def follow(process: subprocess.Popen[str], until: str | None = None) -> str:
    """The output of a run, which goes to the terminal as it comes: all that is left, or up to a line with ``until``."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        say(line)
        lines.append(line)
        if until is not None and until in line:
            break
    return "".join(lines)


def finish(process: subprocess.Popen[str], expected: int) -> str:
    """The rest of the output of a run that has to end with a status."""
    output = follow(process)
    status = process.wait()
    assert status == expected, f"ansible-playbook ended with {status} and not with {expected}"
    return output


def changes(output: str) -> set[tuple[str, str]]:
    """(host, task) of all that changed or would change."""
    found, task = set(), ""
    for line in output.splitlines():
        begun = re.match(r"(?:TASK|RUNNING HANDLER) \[(.*?)\] \**$", line)
        if begun:
            task = begun.group(1)
        changed = re.match(r"changed: \[([^\]]+)\]", line)
        if changed:
            found.add((changed.group(1), task))
    return found


def report(host: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((REPORTS / f"{host}.json").read_text())
    return loaded


def expect_verified(host: str) -> None:
    found = report(host)
    assert found["outcome"] == "verified", f"{host}: {found['outcome']}: {found['failure']}"


def expect_foreseen(host: str, predicted: set[tuple[str, str]], real: set[tuple[str, str]]) -> None:
    """A check run told of all that changed on the host, and of nothing else but that it would be given back."""
    foreseen, done = ({task for name, task in side if name == host and not task.startswith(GIVEN_BACK)} - {UNDRAINED}
                      for side in (predicted, real))
    assert foreseen == done, f"{host}: a check run told {sorted(foreseen)}, and changed were {sorted(done)}"
    assert done, f"{host}: nothing was changed"


def lose_power(process: subprocess.Popen[str]) -> str:
    """Resets a host ten seconds after its run has begun to build; the output until then."""
    output = follow(process, BUILDING)
    time.sleep(10)
    say(f"==> {VICTIM} loses its power\n")
    # No sync and no shutdown; the answer never comes
    subprocess.run([LAB, "reset", VICTIM], check=True)
    return output


def first() -> None:
    """A check run, and the real run: of three hosts one ends verified, one is quarantined and one loses its power."""
    CHANGES.unlink(missing_ok=True)
    predicted = changes(finish(playbook("site.yml", "--check", "--diff"), WELL))
    process = playbook("site.yml")
    output = lose_power(process)
    real = changes(output + finish(process, FAILED))
    expect_foreseen(GOOD, predicted, real)
    expect_verified(GOOD)
    bad = report(BAD)
    assert bad["outcome"] == "quarantined", bad["outcome"]
    assert "C2C link status is 0" in bad["failure"] and "given back as it was before" in bad["after_failure"]
    lost = report(VICTIM)
    assert lost["outcome"] != "verified" and "The host does not answer: " in lost["failure"], lost["failure"]
    CHANGES.write_text(json.dumps([sorted(predicted), sorted(real)]))


def resume() -> None:
    """The next run has nothing to do on the host that is done, and brings the other one to the end."""
    predicted, begun = ({(host, task) for host, task in side} for side in json.loads(CHANGES.read_text()))
    subprocess.run([LAB, "wait", VICTIM], check=True)
    rest = changes(finish(playbook("site.yml", "--limit", f"{GOOD},{VICTIM}"), WELL))
    again = {task for host, task in rest if host == GOOD}
    assert not again, f"{GOOD}: a second run changed {sorted(again)}"
    # Both runs together did what the check run told of one, and nothing else
    expect_foreseen(VICTIM, predicted, begun | rest)
    expect_verified(GOOD)
    expect_verified(VICTIM)


if __name__ == "__main__":
    {"first": first, "resume": resume}[sys.argv[1]]()
