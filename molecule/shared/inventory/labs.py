#!/usr/bin/env python3
# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dynamic inventory of the labs that run and whose names NVGRACE_LABS lists (separated by blanks)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

LAB = Path(__file__).resolve().parents[3] / "tests" / "lab" / "lab"


def main() -> int:
    running = []
    for name in os.environ.get("NVGRACE_LABS", "").split():
        done = subprocess.run([str(LAB), "status", name, "--json"], capture_output=True, text=True, check=False)
        if done.returncode == 0 and json.loads(done.stdout).get("state") == "running":
            running.append(name)
    if not running:
        print(json.dumps({"_meta": {"hostvars": {}}, "labs": {"hosts": []}}))
        return 0
    done = subprocess.run([str(LAB), "inventory", "--json", *running], capture_output=True, text=True, check=True)
    hostvars = json.loads(done.stdout)["labs"]["hosts"]
    print(json.dumps({"_meta": {"hostvars": hostvars}, "labs": {"hosts": sorted(hostvars)}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
