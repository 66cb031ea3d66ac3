#!/usr/bin/env python3
# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Walks docs/getting-started.md, and in it the stages of docs/operator-guide.md, to the letter, on emulated hosts: each
command of the pages in its order, with what the text around it promises; then what the README, docs/fleet.md,
docs/bar2.md and docs/signing.md have their reader type on hosts. Needs root and about twenty minutes; the first thing
that is not as the pages say ends it with status 1. "walk.py pages" is the second half alone.

It writes hosts.yml, broken.yml and inventory.yml into the checkout, as the pages have their reader do, and removes
them.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import yaml

from examples import ROOT, Example, fenced

GUIDE, START = "docs/operator-guide.md", "docs/getting-started.md"
PAGES = ("README.md", "docs/fleet.md", "docs/bar2.md")
HOSTS = ("grace", "spare")
"""Those of the second half: in place of all hosts that the pages name."""
WRITTEN = [ROOT / name for name in ("hosts.yml", "broken.yml", "inventory.yml")]
LAB = str(ROOT / "tests" / "lab" / "lab")
FAILS = "ansible-playbook -i broken.yml"
"""The one command of the pages that ends with a failure, and shall."""


def blocks(page: str) -> list[Example]:
    return [example for example in fenced() if example.where.startswith(f"{page}:") and example.how == "host"]


def run(command: str, environment: dict[str, str], fails: bool = False) -> str:
    """One command in a shell, its output on the terminal and returned."""
    started = time.monotonic()
    print(f"\n$ {command}", flush=True)
    lines = []
    with subprocess.Popen(["bash", "-euo", "pipefail", "-c", command], cwd=ROOT, env=environment, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    print(f"--- {time.monotonic() - started:.0f} s, status {process.returncode}", flush=True)
    if bool(process.returncode) is not fails:
        sys.exit(f"walk: this {'succeeded' if fails else 'failed'}: {command}")
    return "".join(lines)


def expect(promise: str, kept: bool) -> None:
    print(f"{'ok   ' if kept else 'WRONG'} {promise}", flush=True)
    if not kept:
        sys.exit(f"walk: not as the page says: {promise}")


def block(example: Example, environment: dict[str, str]) -> list[str]:
    """The outputs of a block's commands. A line of exports is for all that come after it."""
    outputs = []
    print(f"\n==> {example.where}", flush=True)
    for command in example.commands():
        if command.startswith("export "):
            for name, value in re.findall(r"(\w+)=(\S+)", command):
                environment[name] = value.replace("$PWD", str(ROOT)).replace("$PATH", environment["PATH"])
        else:
            outputs.append(run(command, environment, command.startswith(FAILS)))
    return outputs


def getting_started(environment: dict[str, str]) -> None:
    first, ask, do_it, break_it, give_back = blocks(START)
    seen = block(first, environment)[-1]
    expect("lspci shows a 3D controller 10de:2342", bool(re.search(r"00:10\.0 3D.*\[10de:2342\]", seen)))
    block(ask, environment)
    converge(do_it, environment)
    stopped = block(break_it, environment)[-2]
    expect("the run stops with one sentence about the link", "C2C link status is 0" in stopped)
    expect("the host is given back as it was", "It is given back as it was before." in stopped)
    run("tests/lab/lab start grace", environment)
    block(ask, environment)
    converge(do_it, environment)
    run_through_guide(environment, give_back.commands()[0])
    block(give_back, environment)


def converge(do_it: Example, environment: dict[str, str]) -> None:
    once, again = block(do_it, environment)
    expect("the first run ends with the verified BARs", "verified" in once and "BAR2" in once)
    expect("the second says changed=0", bool(re.search(r"^grace +: .*changed=0 ", again, re.M)))


def run_through_guide(environment: dict[str, str], restore: str) -> None:
    """On the same host, given back before, with the collection installed as an operator has it."""
    run(restore, environment)
    with tempfile.TemporaryDirectory(prefix="walk-") as directory:
        operator = {**environment, "ANSIBLE_COLLECTIONS_PATH": directory}
        write_inventory(operator, "grace")
        for example in blocks(GUIDE):
            for command in example.commands():
                # of other hosts than this one, or of a file that the page shows only
                if not re.search(r"^virsh|--limit|rollout\.yml", command):
                    run(command, operator)
        run("ansible-playbook -i inventory.yml nvgrace.passthrough.restore", operator)


def other_pages(environment: dict[str, str]) -> None:
    """The same as an operator on two hosts: one with everything, one that is handed its module."""
    with tempfile.TemporaryDirectory(prefix="walk-") as directory:
        operator = {**environment, "ANSIBLE_COLLECTIONS_PATH": directory, "ANSIBLE_INVENTORY": "inventory.yml"}
        run(f"{LAB} start {HOSTS[0]}", operator)
        write_inventory(operator, HOSTS[0])
        for page in PAGES:
            for example in blocks(page):
                for command in example.commands():
                    # the README's own commands, which .ci/run and getting-started run
                    if not re.fullmatch("make (demo|test)", command):
                        as_operator(command, operator)
        signing(operator, directory)


def as_operator(command: str, operator: dict[str, str]) -> None:
    """One command of a page, on our host: a program of the host itself goes there by ssh."""
    command = command.replace("HOST", HOSTS[0])
    seen = run(f"{LAB} ssh {HOSTS[0]} -- {command}" if command.startswith("cat ") else command, operator)
    if "passthrough.site" in command:
        expect("the host is verified", "verified" in seen)
    if "fleet-report" in command:
        expect("the report names the host", HOSTS[0] in seen)
    if command.endswith("parameters/layout"):
        expect("the module says which layout it shows", seen.strip() in ("mainline", "bar2"))


def signing(operator: dict[str, str], directory: str) -> None:
    """Build once, without the role: the pair is made as the page says, on the host that builds."""
    builder, other = HOSTS
    run(f"{LAB} start {other}", operator)
    write_inventory(operator, *HOSTS)
    (pair,) = [command for example in fenced() if example.where.startswith("docs/signing.md:") and example.how == "run"
               for command in example.commands()]
    run(f"{LAB} ssh {builder} -- {shlex.quote(f'mkdir -p /etc/keys && cd /etc/keys && {pair}')}", operator)
    release = run(f"{LAB} ssh {other} -- uname -r", operator).strip()
    places = {"build01": builder, "gpu01": other, "6.17.0-1008-nvidia-64k": release,
              "/srv/nvgrace/modules": f"{directory}/modules"}
    for example in blocks("docs/signing.md"):
        for command in example.commands():
            for place, ours in places.items():
                command = command.replace(place, ours)
            run(command, operator)
    signer = run(f"{LAB} ssh {other} -- modinfo -F signer nvgrace-gpu-vfio-pci", operator)
    expect("the other host has the module that the builder has signed", "Example modules" in signer)
    run("ansible-playbook nvgrace.passthrough.restore", operator)


def write_inventory(environment: dict[str, str], *names: str) -> None:
    """inventory.yml with running hosts and the variables of the demo."""
    inventory = yaml.safe_load(run(f"tests/lab/lab inventory {' '.join(names)}", environment))
    inventory["all"]["vars"] = yaml.safe_load((ROOT / "tests" / "demo" / "vars.yml").read_text())
    (ROOT / "inventory.yml").write_text(yaml.safe_dump(inventory))


def main(parts: Sequence[str]) -> int:
    there = [path.name for path in WRITTEN if path.exists()]
    if there:
        sys.exit(f"walk: {', '.join(there)} is there already: move it away.")
    try:
        if "pages" not in parts:
            getting_started(dict(os.environ))
        other_pages(dict(os.environ))
    finally:
        for path in WRITTEN:
            path.unlink(missing_ok=True)
        for name in (*HOSTS, "broken"):
            subprocess.run([LAB, "stop", name], check=False, stderr=subprocess.DEVNULL)
    print("\nwalk: as the pages say")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
