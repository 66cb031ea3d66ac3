# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rolls site.yml out over the scenario's hosts as an operator does, and looks at what became of each: usage:
roll_out.py first|power-off. A host may fail here, which a playbook of molecule's may not."""

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
GOOD = ("fleet-gh200", "fleet-gb200")
BAD = "fleet-c2c"
INVENTORIES = ["--inventory", "molecule/shared/inventory", "--inventory", "molecule/fleet/inventory"]
# A play reads these before it knows a host: from the command line, and not from the inventory
BATCHES = ["--extra-vars", "nvgrace_serial=100% nvgrace_max_fail_percentage=100"]
# What ansible-playbook says with its status: all well, hosts failed, hosts were not reached
WELL, FAILED, UNREACHABLE = 0, 2, 4
# molecule shows what a command said when it has ended, so that one who waits looks here
LOG = REPORTS / "roll-out.log"
# The mark of the scenario's own hook for a drained host, which a check run does not make and so does not find
UNDRAINED = "Say on the host that it works again"
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


def finish(process: subprocess.Popen[str], expected: int) -> str:
    """The output of a run, which goes to the terminal as it comes."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        say(line)
        lines.append(line)
    status = process.wait()
    assert status == expected, f"ansible-playbook ended with {status} and not with {expected}"
    return "".join(lines)


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


def expect_verified(*hosts: str) -> None:
    for host in hosts:
        found = report(host)
        assert found["outcome"] == "verified", f"{host}: {found['outcome']}: {found['failure']}"


def first() -> None:
    """A check run, the real run with the same changes, and a third one that has nothing to do on the good hosts."""
    predicted = changes(finish(playbook("site.yml", "--check", "--diff"), WELL))
    real = changes(finish(playbook("site.yml"), FAILED))
    for host in GOOD:
        foreseen, done = ({task for name, task in side if name == host} - {UNDRAINED} for side in (predicted, real))
        assert foreseen == done, f"{host}: a check run told {sorted(foreseen)}, and changed were {sorted(done)}"
        assert done, f"{host}: nothing was changed"
    expect_verified(*GOOD)
    bad = report(BAD)
    assert bad["outcome"] == "quarantined", bad["outcome"]
    assert "C2C link status is 0" in bad["failure"] and "given back as it was before" in bad["after_failure"]
    again = changes(finish(playbook("site.yml", "--limit", ",".join(GOOD)), WELL))
    assert not again, f"a second run changed {sorted(again)}"


def power_off() -> None:
    """One of two hosts goes down while its module is built; the other is done; the next run brings it to the end."""
    victim, other = GOOD[1], GOOD[0]
    finish(playbook("playbooks/restore.yml", "--limit", victim), WELL)
    process = playbook("site.yml", "--limit", ",".join(GOOD))
    assert process.stdout is not None
    for line in process.stdout:
        say(line)
        if BUILDING in line:
            break
    time.sleep(10)
    say(f"==> {victim} loses its power\n")
    # No sync and no shutdown; the answer never comes
    subprocess.run([LAB, "reset", victim], check=True)
    finish(process, UNREACHABLE)
    expect_verified(other)
    subprocess.run([LAB, "wait", victim], check=True)
    finish(playbook("site.yml", "--limit", ",".join(GOOD)), WELL)
    expect_verified(*GOOD)


if __name__ == "__main__":
    {"first": first, "power-off": power_off}[sys.argv[1]]()
