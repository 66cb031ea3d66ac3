# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_report
short_description: Merge the records of many hosts into one report
version_added: 1.0.0
description:
  - Reads the JSON records that M(nvgrace.passthrough.host_report) has written, the newest of each host, and writes them
    as one HTML page, as Markdown, or as metrics for the textfile collector of Prometheus' node_exporter.
  - The page has everything in itself and loads nothing. A thousand hosts make less than 5 MB.
  - A file that is no record is named in the report with the reason, and does not hold up the others. A host that was
    not reached in the last run has its last record, which is marked as old.
  - Runs on the controller only. The task is never B(changed), because it changes nothing on a host.
options:
  src:
    description: Directories on the controller with the records.
    type: list
    elements: path
    required: true
  dest:
    description: Directory on the controller for C(fleet.html), C(fleet.md) and C(fleet.prom). It is made where it does
      not exist.
    type: path
    required: true
  formats:
    description: What is written.
    type: list
    elements: str
    choices: [html, markdown, prometheus]
    default: [html]
  expected_hosts:
    description: Hosts that should have a record. The report names those that have none.
    type: list
    elements: str
    default: []
author:
  - The nvgrace.passthrough contributors (@nvgrace-passthrough)
attributes:
  action_group:
    support: full
    membership:
      - nvgrace.passthrough.passthrough
    description: Use C(group/nvgrace.passthrough.passthrough) in C(module_defaults) for what modules of a play share.
  check_mode:
    support: full
    description: Reads the records and writes no file.
  diff_mode:
    support: none
    description: Does not return a difference.
  platform:
    support: full
    platforms: linux
    description: Runs on the controller.
"""

EXAMPLES = r"""
- name: Make the report of the fleet
  nvgrace.passthrough.fleet_report:
    src: [reports]
    dest: reports
    formats: [html, markdown]
    expected_hosts: "{{ groups['all'] }}"
"""

RETURN = r"""
paths:
  description: The files, by format.
  returned: success
  type: dict
outcomes:
  description: The number of hosts by outcome.
  returned: success
  type: dict
problems:
  description: Files that are no records, and hosts without one, each with the reason.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The file or the host.
      type: str
    why:
      description: One sentence.
      type: str
outliers:
  description: GPUs that differ from the others of their product, a sentence each.
  returned: success
  type: list
  elements: str
"""
