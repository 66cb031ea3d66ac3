# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans, checks and renders a thousand descriptions on one core and says how long it took; over 5 s it fails."""

from __future__ import annotations

import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".build"))

# after the path is set
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.invariants import (  # noqa: E402
    check_plan,
    check_xml,
)
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.planner import plan_domain  # noqa: E402
from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.domain_render import (  # noqa: E402
    read_template,
    render,
)
from ansible_collections.nvgrace.passthrough.tests.unit._domain.descriptions import CASES  # noqa: E402

COUNT = 1000
LIMIT = 5.0


def main() -> int:
    names = sorted(CASES)
    size = 0
    started = time.process_time()
    for number in range(COUNT):
        case = CASES[names[number % len(names)]]()
        case["vm"]["name"] = f"vm{number}"
        plan = plan_domain(**case)
        check_plan(plan)
        xml = render(plan, read_template())
        check_xml(plan.name, xml)
        size += len(xml)
    seconds = time.process_time() - started
    print(f"{COUNT} descriptions of {len(names)} kinds: {seconds:.2f} s of one core, "
          f"{size / COUNT / 1024:.0f} KiB each; limit {LIMIT:.0f} s")
    return 0 if seconds <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
