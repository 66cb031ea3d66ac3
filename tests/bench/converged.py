# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a converged site.yml costs: module calls a host, the time of each beside that of ``ping`` in the same play, and
the whole beside ``ansible -m ping``.

Runs against the demo's host, after ``make demo``. What is compared alternates, so that a drift of the machine's speed
hits both. Figures are printed, nothing is asserted.
"""

from __future__ import annotations

import argparse
import collections
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import per_call

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".build" / "demo"
COUNTS = WORK / "calls.txt"
BIN = ROOT / ".venv" / "bin"


def timed(argv: list[str], **extra: str) -> float:
    """Seconds of one command that must succeed."""
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"), **extra}
    started = time.monotonic()
    done = subprocess.run(argv, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(argv)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.monotonic() - started


def site_argv(inventory: Path, *playbooks: str) -> list[str]:
    return [str(BIN / "ansible-playbook"), "-i", str(inventory), *(playbooks or ("site.yml",)),
            "-e", "@tests/demo/vars.yml", "-e", f"gpu_report_dir={WORK / 'report'}", "-e", "gpu_report_show=false"]


def calls_of(argv: list[str]) -> list[tuple[str, float]]:
    """Each module call of a run, with its seconds as the controller sees them."""
    COUNTS.unlink(missing_ok=True)
    timed(argv, ANSIBLE_CALLBACK_PLUGINS=str(ROOT / "tests" / "bench" / "callback_plugins"),
          ANSIBLE_CALLBACKS_ENABLED="count_calls", NVGRACE_COUNT_CALLS=str(COUNTS))
    return per_call.calls_in(COUNTS.read_text())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    inventory = WORK / "inventory.yml"
    if not inventory.exists():
        sys.exit("There is no demo host: run make demo first.")
    timed(site_argv(inventory))
    calls = collections.Counter(module for module, _seconds in calls_of(site_argv(inventory)))
    print(f"module calls of a converged site.yml on one host: {sum(calls.values())}")
    for name, count in sorted(calls.items()):
        print(f"  {count} {name}")
    ping = [str(BIN / "ansible"), "-i", str(inventory), "all", "-m", "ansible.builtin.ping"]
    pairs = [(timed(site_argv(inventory)), timed(ping)) for _ in range(options.runs)]
    site, floor = (statistics.median(column) for column in zip(*pairs))
    ratio = statistics.median(one / other for one, other in pairs)
    print(f"site.yml converged: {site:.1f} s, ansible -m ping: {floor:.1f} s, ratio {ratio:.1f} "
          f"(medians of {options.runs} alternating pairs)")
    print()
    argv = [*site_argv(inventory, *per_call.PLAYS), *per_call.WITHOUT_ANSWERS]
    per_call.show([calls_of(argv) for _ in range(options.runs)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
