# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each module call costs over ``ping`` on a simulated host with four GPUs (tree.py) and nothing to do, at the
speed of this machine. Fails where a module misses the goal.

A run has two hosts, one after the other, and the second is measured: what a module is packed into is made once a run,
on the controller, and the first host that needs it waits for that.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT / "tests" / "bench"), str(ROOT / ".build")]

# where the line above leads
import mounts  # noqa: E402
import per_call  # noqa: E402
from hosts import Fleet, fleet  # noqa: E402
from measure import measure  # noqa: E402


def run(hosts: Fleet, *playbooks: str) -> list[tuple[str, float]]:
    measure(hosts, "ansible-playbook", "--forks", "1", *playbooks, "-e", "gpu_report_show=false",
            "-e", f"gpu_report_dir={hosts.directory / 'reports'}", *per_call.WITHOUT_ANSWERS)
    return per_call.calls_in((hosts.directory / "calls").read_text(), max(hosts.namespaces))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    mounts.enter_own_namespace()
    with fleet(2, ROOT / ".build") as hosts:
        run(hosts, "site.yml")
        missed = per_call.show([run(hosts, *per_call.PLAYS) for _ in range(options.rounds)])
    for module in missed:
        print(f"MISSED: {module}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
