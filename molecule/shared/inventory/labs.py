#!/usr/bin/env python3
# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dynamic inventory of the labs that run and whose names NVGRACE_LABS lists, separated by blanks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

LAB = str(Path(__file__).resolve().parents[3] / "tests" / "lab" / "lab")


def lab(*arguments: str) -> str:
    return subprocess.run([LAB, *arguments], capture_output=True, text=True, check=True).stdout


def main() -> int:
    wanted = os.environ.get("NVGRACE_LABS", "").split()
    states = {entry["name"]: entry["state"] for entry in json.loads(lab("status", "--json"))}
    running = [name for name in wanted if states.get(name) == "running"]
    hostvars = yaml.safe_load(lab("inventory", *running))["all"]["hosts"] if running else {}
    print(json.dumps({"_meta": {"hostvars": hostvars}, "labs": {"hosts": sorted(hostvars)}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
