# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fleet costs its controller: site.yml on N simulated hosts, first run and converged, beside ``ansible -m ping``
and a playbook of stock modules that brings the same hosts to the same state as far as such playbooks do.

A simulated host is a mount namespace with the root of a GB200 (tree.py); the modules in it are the real ones, and run
on the machine that this runs on.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT / ".build")]

# where the line above leads
import mounts  # noqa: E402
from hosts import Fleet, fleet, more_of  # noqa: E402
from measure import Run, measure, measure_site  # noqa: E402

MIB = 1 << 20
MOST_CALLS, MOST_PINGS, LEAST_GAIN = 8, 8, 5
# As ping and the peers take their hosts: all at once.
ONE_BATCH = ("-e", '{"nvgrace_serial": ["100%"]}')
HEADER = ("run", "wall s", "CPU/host s", "of which host s", "main MiB", "all MiB", "calls/host")


def site(hosts: Fleet, *options: str) -> Run:
    return measure_site(hosts, "-e", "gpu_report_show=false", "-e", "nvgrace_max_fail_percentage=0", *options)


def ping(hosts: Fleet) -> Run:
    return measure(hosts, "ansible", "all", "-m", "ansible.builtin.ping")


def peers(hosts: Fleet) -> Run:
    return measure(hosts, "ansible-playbook", "tests/bench/fleet/peers.yml")


def row(name: str, run: Run) -> str:
    values = (f"{run.wall:.1f}", f"{run.cpu / run.hosts:.2f}", f"{run.host_cpu / run.hosts:.2f}",
              f"{run.main_memory / MIB:.0f}", f"{run.memory / MIB:.0f}", f"{run.calls_per_host():.1f}")
    return f"{name:<24}" + "".join(f"{value:>{len(head) + 2}}" for value, head in zip(values, HEADER[1:]))


def show(name: str, run: Run) -> Run:
    print(row(name, run), flush=True)
    return run


def _middle(runs: Sequence[Run]) -> Run:
    """The run with the median of the wall times."""
    return sorted(runs, key=lambda run: run.wall)[len(runs) // 2]


def converged(run: Run) -> Run:
    """The run itself. One that changed something ends the measurement: it is not what its figures would say."""
    if run.changed:
        sys.exit(f"A converged run changed {run.changed} things.")
    return run


def compare(count: int, pairs: int, with_peers: bool, from_one: bool) -> list[str]:
    """Measures and prints; the sentences of the goals that are missed. The peers have a fleet of their own.
    ``from_one``: only one host has a first run, all begin as what became of it, and are taken in one batch."""
    work = ROOT / ".build"
    print(f"{count} hosts, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before; "
          f"medians of {pairs} alternating rounds, first runs once\n")
    print(f"{HEADER[0]:<24}" + "".join(f"  {head}" for head in HEADER[1:]), flush=True)
    with fleet(1 if from_one else count, work) as begun:
        show("site.yml, first run" + (" (1 host)" if from_one else ""), site(begun))
        ours = more_of(begun, count) if from_one else begun
        if not from_one:
            show("site.yml, converged", _middle([converged(site(ours)) for _ in range(pairs)]))
        rounds = [(converged(site(ours, *ONE_BATCH)), ping(ours)) for _ in range(pairs)]
    again, floor = (show(name, _middle([both[place] for both in rounds]))
                    for place, name in enumerate(("the same in one batch", "ansible -m ping")))
    ratio = statistics.median(one.wall / other.wall for one, other in rounds)
    other = None
    if with_peers:
        with fleet(count, work) as theirs:
            show("peers.yml, first run", peers(theirs))
            other = show("peers.yml, converged", _middle([converged(peers(theirs)) for _ in range(pairs)]))
    calls = [f"{name.rpartition('.')[2]} {number / count:g}" for name, number in sorted(again.calls.items())]
    print(f"\ncalls of a converged site.yml: {', '.join(calls)}")
    return _goals(again, floor, ratio, other)


def _goals(again: Run, floor: Run, ratio: float, other: Run | None) -> list[str]:
    """Prints each goal with what was measured; those that are missed."""
    calls = again.calls_per_host()
    goals = [(f"calls a host, at most {MOST_CALLS}", calls, calls <= MOST_CALLS),
             (f"wall over ping, at most {MOST_PINGS}", ratio, ratio <= MOST_PINGS)]
    if other is not None:
        for what, gain in (("wall", other.wall / again.wall), ("CPU", other.cpu / again.cpu)):
            goals.append((f"{what} of the peers over ours, at least {LEAST_GAIN}", gain, gain >= LEAST_GAIN))
    print(f"CPU over ping: {again.cpu / floor.cpu:.1f}")
    for text, value, met in goals:
        print(f"{'met   ' if met else 'MISSED'}  {text}: {value:.1f}")
    return [text for text, _value, met in goals if not met]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("hosts", type=int, nargs="?", default=10)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true", help="leave the playbook of stock modules out")
    parser.add_argument("--from-one", action="store_true", help="one host has a first run, all begin as its copies")
    parser.add_argument("--goals", action="store_true", help="fail where any goal is missed")
    options = parser.parse_args()
    mounts.enter_own_namespace()
    missed = compare(options.hosts, options.pairs, not options.no_peers, options.from_one)
    return 1 if any("calls" in goal for goal in missed) or missed and options.goals else 0


if __name__ == "__main__":
    sys.exit(main())
