# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Turns the output of "lab status NAME --json" into the words that tests/kmod/run reads."""

from __future__ import annotations

import json
import sys

# No DVSEC that says the MIG hardware bug is fixed: the products of the Hopper family.
MIG_BUG = {"10de:2342", "10de:2345", "10de:2348"}

host = json.load(sys.stdin)[0]
gpu = host["gpus"][0]
print(gpu["address"], gpu["memory_size"], gpu["memory_base"], int(gpu["id"] in MIG_BUG),
      ",".join(host["faults"]) or "none")
