#!/usr/bin/python
# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_survey
short_description: Ask in one call which stages of a host have nothing to do
version_added: 1.0.0
description:
  - Runs M(nvgrace.passthrough.host_info), M(nvgrace.passthrough.gpu_info), M(nvgrace.passthrough.host_config),
    M(nvgrace.passthrough.dkms_module), M(nvgrace.passthrough.gpu_driver) and M(nvgrace.passthrough.region_verify) in
    check mode and in this order, within one call to the host, and keeps what each of them returns. Then it looks at the
    domains that M(nvgrace.passthrough.domain_xml) has defined.
  - It ends at the first that would change something, would fail, or waits for a reboot. So an answer that is kept is
    the one that a real run of its module gives, because nothing is to be done before it and by it.
  - Those modules take the name of the variable in which this result is registered as their option C(survey), and then
    answer without a call to the host. That makes a converged run of C(site.yml) several times cheaper.
  - Changes nothing, and opens no device.
author:
  - The nvgrace.passthrough contributors (@nvgrace-passthrough)
options:
  host_info:
    description: The options of M(nvgrace.passthrough.host_info).
    type: dict
    required: true
  gpu_info:
    description: The options of M(nvgrace.passthrough.gpu_info).
    type: dict
    required: true
  host_config:
    description:
      - The options of M(nvgrace.passthrough.host_config), without C(state).
      - The survey ends before the first module that is left out.
    type: dict
  dkms_module:
    description:
      - The options of M(nvgrace.passthrough.dkms_module), without C(state), and without C(required_ids), which are
        those of the GPUs that M(nvgrace.passthrough.gpu_info) finds.
    type: dict
  gpu_driver:
    description:
      - The options of M(nvgrace.passthrough.gpu_driver), without C(state), and without C(planned_modules), which are
        those of M(nvgrace.passthrough.dkms_module).
    type: dict
  region_verify:
    description: The options of M(nvgrace.passthrough.region_verify).
    type: dict
  vms:
    description:
      - The descriptions of the VMs, as M(nvgrace.passthrough.domain_xml) takes them in C(vm). Of these, only what
        stands here is sent to the host.
      - A domain is answered where libvirt still has what was made of the XML that was defined last. The task compares
        that XML with the one that it renders.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the domain.
        type: str
        required: true
      autostart:
        description: Whether libvirt shall start the domain at boot. Left as it is when not given.
        type: bool
  until:
    description:
      - Names of the variables in which later tasks of the play register their results. Once one of them has changed
        something, or has included tasks, RV(answers) are good no more.
      - Name here whatever changes what the modules look at; they cannot know of anything else.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - nvgrace.passthrough.attributes
  - nvgrace.passthrough.attributes.no_changes
notes:
  - Bad options of a module are no failure here. The module itself says it when its turn has come.
  - While another run is at work on the host, only what reads is answered.
seealso:
  - module: nvgrace.passthrough.host_info
  - module: nvgrace.passthrough.gpu_info
  - module: nvgrace.passthrough.host_config
  - module: nvgrace.passthrough.dkms_module
  - module: nvgrace.passthrough.gpu_driver
  - module: nvgrace.passthrough.region_verify
"""

EXAMPLES = r"""
- name: Ask what is to be done
  nvgrace.passthrough.host_survey:
    host_info:
      profiles: [native]
    gpu_info:
      gpus: "{{ gpus }}"
    host_config:
      modprobe_blacklist: [nouveau]
    until: [upgrade]
  register: survey
  become: true

- name: Upgrade what is there
  ansible.builtin.package:
    name: "*"
    state: latest
  register: upgrade
  become: true

- name: Configure the host, without a call where the survey has seen that nothing is to be done
  nvgrace.passthrough.host_config:
    modprobe_blacklist: [nouveau]
    survey: survey
  become: true
"""

RETURN = r"""
answers:
  description:
    - For each module that has nothing to do, its arguments and its result, packed (JSON, zlib, Base64).
    - A module that is given the variable's name as C(survey) takes its answer from here. One with other arguments asks
      the host itself, and so does one in another play, one after a change (O(until)), and one that comes twenty minutes
      after the survey (C(asked_at) of this result, by the controller's steady clock).
  returned: success
  type: dict
  sample: {"host_info": "eJyr...", "gpu_info": "eJyr..."}
settled:
  description: The names in RV(answers) in their order. That of a domain is C(domain_xml) with the domain's name.
  returned: success
  type: list
  elements: str
  sample: [host_info, gpu_info, host_config]
open_stage:
  description: The first module without an answer, C(domain_xml) for a domain. V(null) where all have one.
  returned: success
  type: str
  sample: dkms_module
why:
  description: Why RV(open_stage) has no answer. V(null) where all have one.
  returned: success
  type: str
  sample: "It would build nvgrace-gpu-vfio-pci 1.0.0 for 7.3.4+deb13-arm64."
elapsed:
  description: Seconds of work on the host.
  returned: success
  type: float
  sample: 0.214
"""

from ansible_collections.nvgrace.passthrough.plugins.module_utils._survey.stage import run_survey


def main() -> None:
    run_survey()


if __name__ == "__main__":
    main()
