# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The records of many hosts as one report: a page, Markdown, or metrics. Runs on the controller only."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report import fleet as fleets
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.fleet import Fleet
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.markdown import markdown
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.page import host_rows, page_data
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.prometheus import prometheus
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.text import human_size

# The role owns the page's files so that a user who reads the role finds them; the plugin is two levels below the root.
_ROLE = Path(__file__).resolve().parents[2] / "roles" / "gpu_report"
# Name, heading and kind of each column of the table of hosts
COLUMNS = (("host", "Host", ""), ("outcome", "Outcome", ""), ("gpus", "GPUs", ""), ("verdict", "Verdict", ""),
           ("driver", "Driver", ""), ("memory", "Memory seen", "number"), ("findings", "Findings", "number"),
           ("outliers", "Odd", "number"), ("kernel", "Kernel", ""), ("seconds", "Seconds", "number"),
           ("age", "Age", "number"))
# Of a list that may have a thousand entries, how many the page's head shows
MOST = 20


def page(fleet: Fleet) -> str:
    """One HTML page with everything in it; it loads nothing. What hosts say is data and never markup."""
    script = (_ROLE / "files" / "fleet.js").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["human_size"] = human_size
    template = environment.from_string((_ROLE / "templates" / "fleet.html.j2").read_text(encoding="utf-8"))
    return template.render(
        fleet=fleet, rows=host_rows(fleet), findings=fleets.findings(fleet), products=fleets.products(fleet),
        timings=fleets.timings(fleet), columns=COLUMNS, most=MOST,
        gpus=sum(len(record.gpus) for record in fleet.records),
        style=_Ready((_ROLE / "files" / "fleet.css").read_text(encoding="utf-8")), script=_Ready(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=_Ready(_embedded(page_data(fleet)))) + "\n"


class _Ready(str):
    """Text that is put into the page as it is: our own files, and data without a character that could end a script."""

    def __html__(self) -> str:
        return self


def _embedded(data: object) -> str:
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


FORMATS = {"html": page, "markdown": markdown, "prometheus": prometheus}
SUFFIXES = {"html": ".html", "markdown": ".md", "prometheus": ".prom"}


def read_fleet(directories: Sequence[str], expected: Iterable[str] = ()) -> Fleet:
    """The fleet of all records in the directories. Raises PassthroughError where one cannot be read or none has a
    record."""
    records, problems = fleets.read_records([Path(directory).expanduser() for directory in directories])
    if not records:
        reasons = "".join(f" {problem.name}: {problem.why}" for problem in problems[:3])
        raise PassthroughError(f"No record of a host is in {', '.join(directories)}: run site.yml first, or name the "
                               f"directory that gpu_report_dir named.{reasons}")
    return fleets.merge(records, problems, datetime.datetime.now(datetime.timezone.utc), expected)
