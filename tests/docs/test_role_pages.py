# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of variables in a role's README says what its argument spec says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).resolve().parents[2] / "roles"
# Its variables are those of all others, which have their own pages.
WITHOUT_TABLE = {"gpu_survey"}
_ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| (.+?) \| .+ \|$", re.MULTILINE)


def options_of(role: str) -> dict[str, dict[str, Any]]:
    text = (ROLES / role / "meta" / "argument_specs.yml").read_text()
    options: dict[str, dict[str, Any]] = yaml.safe_load(text)["argument_specs"]["main"]["options"]
    return options


@pytest.mark.parametrize("role", sorted({path.name for path in ROLES.iterdir()} - WITHOUT_TABLE))
def test_the_table_is_the_spec(role: str) -> None:
    rows = {name: (kind, default) for name, kind, default in _ROW.findall((ROLES / role / "README.md").read_text())}
    expected = {name: (option["type"], option.get("default", "none")) for name, option in options_of(role).items()}
    shown = {name: (kind, "none" if default == "none" else yaml.safe_load(default.strip("`")))
             for name, (kind, default) in rows.items()}
    assert shown == expected
