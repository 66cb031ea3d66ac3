# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation that all modules of the collection share: their attributes and the list of GPUs."""

from __future__ import annotations


class ModuleDocFragment:
    """Fragments named nvgrace.passthrough.attributes[.NAME]."""

    DOCUMENTATION = r"""
options: {}
requirements:
  - Python 3.9 or newer on the managed host, standard library only
  - root on the managed host (C(become=true))
attributes:
  action_group:
    support: full
    membership:
      - nvgrace.passthrough.passthrough
    description: Use C(group/nvgrace.passthrough.passthrough) in C(module_defaults) for what modules of a play share.
  check_mode:
    support: full
    description: Computes the same plan as a real run and applies nothing.
  platform:
    support: full
    platforms: linux
    description: Linux hosts, arm64 or x86_64.
"""

    CHANGES = r"""
options: {}
attributes:
  diff_mode:
    support: full
    description: Returns the state before and after as text.
  idempotent:
    support: full
    description: A second run with the same input changes nothing.
"""

    NO_CHANGES = r"""
options: {}
attributes:
  diff_mode:
    support: N/A
    description: Changes nothing, so there is no difference to show.
  idempotent:
    support: full
    description: Reads only.
"""

    GPUS = r"""
options:
  gpus:
    description:
      - The GPUs to work on. Each item has either O(gpus[].address), or O(gpus[].vendor_device) with O(gpus[].count).
      - Only listed or matched functions are ever touched.
    type: list
    elements: dict
    suboptions:
      address:
        description: Full PCI address, for example V(0009:01:00.0).
        type: str
      vendor_device:
        description: Vendor and device id in hexadecimal, for example V(10de:2342).
        type: str
      count:
        description: How many functions must match O(gpus[].vendor_device). More or fewer is an error.
        type: int
      expected_memory:
        description: Bytes of GPU memory that VFIO must show. Overrides the figure of the product table.
        type: int
      product:
        description: Key of the product table, where the device id alone does not tell, for example V(gh200-120gb).
        type: str
"""

    SURVEY = r"""
options:
  survey:
    description:
      - Name of the variable in which M(nvgrace.passthrough.host_survey) has registered its result, before in the same
        play.
      - Where that has an answer to the same options that is good still, this task returns it and calls no host. A
        variable that does not exist has none.
    type: str
"""
