# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleets made of the records that the scenario ``fleet`` left of emulated hosts."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

RECORDS = {path.stem.removeprefix("fleet-"): json.loads(path.read_text())
           for path in sorted((Path(__file__).parent / "records").glob("*.json"))}


def record(kind: str, name: str, **changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(RECORDS[kind]), "inventory_hostname": name, **changes}


def write(directory: Path, *records: dict[str, Any]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for number, entry in enumerate(records):
        (directory / f"{number}.json").write_text(json.dumps(entry))
    return directory
