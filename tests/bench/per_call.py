# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each module call costs over ``ping`` in the same play, on a host with nothing to do.

A converged site.yml calls host_survey and no other module. So its answers are thrown away here (``WITHOUT_ANSWERS``),
and each module is called, too.
"""

from __future__ import annotations

import collections
import statistics
from collections.abc import Sequence

GOAL = 0.150  # seconds over ping, for every module but these two
OTHER_GOALS = ("region_verify", "host_survey")
WITHOUT_ANSWERS = ("-e", '{"gpu_survey_result": {}}')
# Module and seconds of each call of a round that begins and ends with pings
Round = Sequence[tuple[str, float]]
PLAYS = ("tests/bench/ping.yml", "site.yml", "tests/bench/ping.yml")


def calls_in(text: str, host: str = "") -> list[tuple[str, float]]:
    """Module and seconds of the lines of the callback count_calls; of one host, or of all."""
    return [(module, float(seconds)) for name, module, seconds in map(str.split, text.splitlines())
            if host in ("", name)]


def over_ping(rounds: Sequence[Round]) -> tuple[float, dict[str, float]]:
    """Seconds of a ping, and by module how much more its call takes; medians of all rounds."""
    over: collections.defaultdict[str, list[float]] = collections.defaultdict(list)
    floors = []
    for calls in rounds:
        floor = statistics.median(seconds for module, seconds in calls if "ping" in module)
        floors.append(floor)
        for module, seconds in calls:
            if "ping" not in module:
                over[module].append(seconds - floor)
    return statistics.median(floors), {module: statistics.median(found) for module, found in over.items()}


def show(rounds: Sequence[Round]) -> list[str]:
    """Prints all of them; the modules that miss the goal. host_survey's is what the modules that it spares cost."""
    floor, over = over_ping(rounds)
    print(f"ping: {floor * 1000:.0f} ms; over that, medians of {len(rounds)} rounds (goal {GOAL * 1000:.0f} ms, "
          f"{' and '.join(OTHER_GOALS)} apart):")
    for module, seconds in sorted(over.items()):
        print(f"  {module:<40} {seconds * 1000:6.0f} ms")
    spared = sum(seconds for module, seconds in over.items() if "host_survey" not in module)
    print(f"  {'all but host_survey':<40} {spared * 1000:6.0f} ms")
    missed = [module for module, seconds in over.items() if seconds > GOAL and not module.endswith(OTHER_GOALS)]
    return missed + [module for module, seconds in over.items() if "host_survey" in module and seconds > spared]
