# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the survey spares: a converged host costs one call, and its record says what the seven calls would have said.

Needs a mount namespace of its own and root: tests/run does that.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT / "tests" / "bench"), str(ROOT / ".build")]

# where the line above leads
import per_call  # noqa: E402
from hosts import Fleet, fleet  # noqa: E402
from measure import measure_site  # noqa: E402

MODULES = ("host_info", "gpu_info", "host_config", "dkms_module", "gpu_driver", "region_verify", "domain_xml")
# What is new in each run, with every host doing the same.
TIMES = {"generated_at", "seconds", "elapsed"}


@pytest.fixture(scope="module")
def hosts() -> Iterator[Fleet]:
    with fleet(1, ROOT / ".build") as made:
        run(made)
        yield made


def run(hosts: Fleet, *options: str) -> tuple[Counter[str], Any]:
    """The calls of a run, by module, and the record that it leaves."""
    done = measure_site(hosts, *options)
    (record,) = (hosts.directory / "reports").glob("*.json")
    calls = Counter({name.rpartition(".")[2]: number for name, number in done.calls.items()})
    return calls, without_times(json.loads(record.read_text()))


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_times(item) for name, item in value.items() if name not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("check", [(), ("--check", "--diff")], ids=["real run", "check run"])
def test_one_call_says_what_seven_say(hosts: Fleet, check: tuple[str, ...]) -> None:
    calls, record = run(hosts, *check)
    assert calls == {"host_survey": 1}
    every_call, plain = run(hosts, *per_call.WITHOUT_ANSWERS, *check)
    assert every_call == {"host_survey": 1, **dict.fromkeys(MODULES, 1)}
    assert record == plain
    assert record["outcome"] == "verified"


def test_a_stage_with_something_to_do_is_called(hosts: Fleet) -> None:
    """One more file of the host's configuration: what stands before is answered, and what stands behind is not."""
    calls, record = run(hosts, "-e", '{"gpu_host_modules_load": ["vfio_pci"]}')
    assert calls == {"host_survey": 1, **dict.fromkeys(MODULES[2:], 1)}
    assert record["outcome"] == "verified"
