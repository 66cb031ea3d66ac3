# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_report
short_description: Write what was found and done on a host as JSON and text on the controller
version_added: 1.0.0
description:
  - Merges the results of the other modules into one JSON file and one text file for each host.
  - Runs on the controller only and costs no call to the managed host. Reports of many controllers can be put into
    one directory.
  - The task is never B(changed), because it changes nothing on the host that it reports on.
options:
  dest:
    description: Directory on the controller. It is made where it does not exist.
    type: path
    required: true
  host:
    description: The registered result of M(nvgrace.passthrough.host_info).
    type: dict
  gpus:
    description: The registered result of M(nvgrace.passthrough.gpu_info).
    type: dict
  accepted:
    description: Ids of failed checks that were accepted.
    type: list
    elements: str
  stages:
    description: The registered results of the roles, by name of the role.
    type: dict
  registered:
    description:
      - Names of the variables that hold these results, in place of O(host), O(gpus) and O(stages), as V(host),
        V(gpus) and the roles' names. One that no task has registered is left out.
      - A result that is given by name is not templated, which for a host with several GPUs is most of what this task
        costs.
    type: dict
    version_added: 1.0.0
  reboot_required:
    description: Whether a reboot is due. Without it the result of the role gpu_host says so.
    type: bool
  failure:
    description: One sentence on what stopped the host. Empty where nothing did.
    type: str
  after_failure:
    description: What became of a host that was stopped, for example that it was given back.
    type: str
  quarantined:
    description: Whether a host that was stopped is as it was before the run.
    type: bool
  show:
    description: Whether the run shows the result, as it does of each task with C(-v).
    type: bool
    default: false
  fail:
    description: Whether the task fails where O(failure) is given, with it and O(after_failure), after the report.
    type: bool
    default: false
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
    description: Returns the text, writes no file.
  diff_mode:
    support: none
    description: Does not return a difference.
  platform:
    support: full
    platforms: linux
    description: Runs on the controller.
"""

EXAMPLES = r"""
- name: Report what was found
  nvgrace.passthrough.host_report:
    dest: reports
    host: "{{ gpu_preflight_host_info }}"
    gpus: "{{ gpu_preflight_gpu_info }}"
    stages:
      gpu_verify: "{{ gpu_verify_result }}"

- name: Report the same by the names of the variables
  nvgrace.passthrough.host_report:
    dest: reports
    registered:
      host: gpu_preflight_host_info
      gpus: gpu_preflight_gpu_info
      gpu_verify: gpu_verify_result
"""

RETURN = r"""
path:
  description: The JSON file; docs/schemas/report.schema.json describes it.
  returned: success
  type: str
text_path:
  description: The text file.
  returned: success
  type: str
lines:
  description: The text, with the table of regions and the BAR map of each GPU.
  returned: success, or with O(show)
  type: list
  elements: str
outcome:
  description: What became of the host, V(verified), V(unchecked), V(predicted) in check mode, V(incomplete), V(failed),
    V(quarantined) where it failed and was given back.
  returned: success
  type: str
"""
