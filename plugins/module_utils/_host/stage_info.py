# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""host_info apart from AnsibleModule."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .._core.host import Host
from .._core.stage import Asked, Stage
from .gather import gather_facts
from .severity import AUTO, PROFILES, judge, resolve_profiles


def _read(module: Asked, host: Host) -> dict[str, Any]:
    facts = gather_facts(host, module.params["probe_qemu"])
    profiles = resolve_profiles(module.params["profiles"], facts)
    checks = [asdict(check) for check in judge(facts, profiles)]
    return {"changed": False, "host": {**facts.as_dict(), "profiles": list(profiles), "checks": checks}}


HOST_INFO = Stage(
    name="host_info",
    options={
        "profiles": {"type": "list", "elements": "str", "choices": [AUTO, *PROFILES], "default": [AUTO]},
        "probe_qemu": {"type": "bool", "default": True},
    },
    work=_read,
    locked=False,
)
