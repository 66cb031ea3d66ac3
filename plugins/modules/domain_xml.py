#!/usr/bin/python
# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes, validates and defines the libvirt domain of a VM with passed-through GPUs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: domain_xml
short_description: Make and define the libvirt domain of a VM with passed-through GPUs
version_added: 1.0.0
description:
  - >-
    Makes the libvirt XML of a VM from a short description and from the facts of the host and its GPUs, for the libvirt
    and QEMU that the host has.
  - >-
    Each GPU gets a PCI root of its own, near its NUMA node, with the generic-initiator nodes of the host, the host's
    distances, and an MMIO window that holds what M(nvgrace.passthrough.region_verify) saw. Every device has an explicit
    address, the UUID and the MAC addresses depend on the name only, so that the same description gives the same XML.
  - >-
    What libvirt does not check is checked before the host is touched (for example that no emulated device shares a
    root port with a GPU). libvirt always validates against its schema, because it silently drops what it does not know.
  - >-
    In check mode libvirt's own driver normalises the new definition aside, so that C(changed) and the diff are true.
  - Never starts or stops a VM.
author:
  - The nvgrace.passthrough contributors (@nvgrace-passthrough)
extends_documentation_fragment:
  - nvgrace.passthrough.attributes
  - nvgrace.passthrough.attributes.changes
  - nvgrace.passthrough.attributes.survey
requirements:
  - virsh and libvirt's QEMU driver on the managed host, unless O(define=false) or O(state=rendered)
notes:
  - >-
    Profiles, chosen by what the host's libvirt and QEMU can do. V(native) has accelerated SMMUv3, iommufd and generic
    initiators by libvirt's elements (libvirt 12.7, QEMU 11.0). V(no-accel) has the same elements without the SMMU.
    V(compat) sets generic initiators and the MMIO window on QEMU's command line (libvirt 9.7, QEMU 10.0). V(x86) is for
    x86_64 hosts.
  - Domains of the profile V(compat) are marked tainted by libvirt (custom-argv, custom-device). That is expected.
options:
  state:
    description:
      - V(present) defines the domain, writes O(dest), or both.
      - >-
        V(absent) undefines it with its NVRAM and gives O(dest) back as it was. Without O(vm) it does so for all domains
        that the collection has defined on the host. A running domain is refused.
      - V(rendered) only returns the XML and needs no host at all.
    type: str
    choices: [present, absent, rendered]
    default: present
  vm:
    description: The VM. Needed unless O(state=absent); there only O(vm.name) counts.
    type: dict
    suboptions:
      name:
        description: Name of the domain. A letter first, then letters, digits, C(.), C(_), C(+) and C(-).
        type: str
        required: true
      uuid:
        description: UUID of the domain. Depends on O(vm.name) when left out.
        type: str
      vcpus:
        description: Number of vCPUs. Must divide evenly over the NUMA nodes that are used.
        type: int
      memory:
        description: Memory in bytes, or with a unit such as V(256GiB) (powers of 1024).
        type: str
      gpus:
        description:
          - A list of PCI addresses, or a number.
          - >-
            A number takes the first GPUs by address. With several VMs on a host list the addresses, because each VM
            would take the same ones.
        type: raw
      type:
        description: V(qemu) emulates the processor and is for tests.
        type: str
        choices: [kvm, qemu]
        default: kvm
      profile:
        description: The shape of the domain, see the notes.
        type: str
        choices: [auto, native, no-accel, compat, x86]
        default: auto
      hugepages:
        description: Size of the huge pages that back the memory, for example V(512M). Normal pages when left out.
        type: str
      pinning:
        description: V(auto) pins each vCPU to a CPU of its NUMA node where there are enough, else warns.
        type: str
        choices: [auto, none]
        default: auto
      host_nodes:
        description: NUMA nodes of the host for CPUs and memory. The nodes of the GPUs when left out.
        type: list
        elements: int
      generic_initiators:
        description: V(none) leaves out the NUMA nodes for GPU memory.
        type: str
        choices: [auto, none]
        default: auto
      cmdqv:
        description:
          - >-
            Gives the guest command queues of the Grace SMMU (vCMDQ), so that it invalidates its TLBs without leaving
            the guest.
          - Needs the profile V(native), QEMU 11.1 and O(vm.hugepages).
        type: bool
        default: false
      disks:
        description: Disks, all virtio.
        type: list
        elements: dict
        suboptions:
          path:
            description: Image file or block device of the host. A path below C(/dev) is a block device.
            type: str
            required: true
          format:
            description: Format of the image.
            type: str
            choices: [raw, qcow2]
            default: raw
          target:
            description: Name in the guest, V(vda) for the first and so on when left out.
            type: str
      networks:
        description: Network interfaces, all virtio.
        type: list
        elements: dict
        suboptions:
          network:
            description: A network of libvirt. Either this or O(vm.networks[].bridge).
            type: str
          bridge:
            description: A bridge of the host.
            type: str
          mac:
            description:
              - MAC address. Depends on O(vm.name) and the position when left out.
              - VMs of the same name on hosts that share a network need their own.
            type: str
      firmware:
        description: The UEFI image. The host's image without Secure Boot when left out.
        type: dict
        suboptions:
          loader:
            description: Path of the code image on the host.
            type: str
            required: true
          nvram_template:
            description: Path of the variables that belong to it.
            type: str
            required: true
      kernel:
        description: Starts this kernel directly instead of a disk.
        type: dict
        suboptions:
          path:
            description: Kernel on the host.
            type: str
            required: true
          initrd:
            description: Initial RAM disk on the host.
            type: str
          cmdline:
            description: Kernel command line.
            type: str
      serial_log:
        description: File on the host that gets the serial console. A pseudo terminal when left out.
        type: str
      extra_xml:
        description:
          - libvirt elements for the end of C(<devices>), taken as they are.
          - PCI devices among them need an explicit address that is free.
        type: str
      autostart:
        description: Same as O(autostart), which wins.
        type: bool
  host:
    description: RV(nvgrace.passthrough.host_info#module:host). Only O(state=rendered) can do without.
    type: dict
  gpus:
    description: RV(nvgrace.passthrough.gpu_info#module:gpus).
    type: list
    elements: dict
    default: []
  registered:
    description:
      - Names of the variables in which tasks have registered these results, in place of O(host), O(gpus) and
        O(regions), which are also its keys. A variable without the result is an error.
      - A result that is given by name is not templated, which for a host with several GPUs is most of what this task
        costs.
    type: dict
    version_added: 1.0.0
  regions:
    description:
      - RV(nvgrace.passthrough.region_verify#module:devices).
      - >-
        For a GPU that is not in there, or not verified, sizes come from its expected memory, else from the product
        table; RV(features) tells which.
    type: list
    elements: dict
    default: []
  template:
    description:
      - A Jinja2 template on the controller in place of the collection's own.
      - It prints C(plan), the value object C(DomainPlan) in C(plugins/module_utils/_domain/model.py).
    type: path
  dest:
    description: Also writes the XML to this file of the managed host. O(state=absent) gives the original back.
    type: path
  define:
    description: Whether the domain is defined in libvirt.
    type: bool
    default: true
  autostart:
    description: Whether libvirt starts the domain at boot. Left as it is when not given.
    type: bool
"""

EXAMPLES = r"""
- name: Define a VM with the GPU of a GH200
  nvgrace.passthrough.domain_xml:
    vm:
      name: gpu-vm
      vcpus: 64
      memory: 256GiB
      hugepages: 512M
      gpus: ["0009:01:00.0"]
      disks:
        - path: /var/lib/libvirt/images/gpu-vm.img
      networks:
        - network: default
    host: "{{ host_info_result.host }}"
    gpus: "{{ gpu_info_result.gpus }}"
    regions: "{{ region_verify_result.devices }}"

- name: Define it from registered results, by the names of their variables
  nvgrace.passthrough.domain_xml:
    vm:
      name: gpu-vm
      vcpus: 64
      memory: 256GiB
      gpus: ["0009:01:00.0"]
    registered:
      host: host_info_result
      gpus: gpu_info_result
      regions: region_verify_result

- name: Look at the XML without touching any host
  nvgrace.passthrough.domain_xml:
    state: rendered
    vm: "{{ vm }}"
    host: "{{ saved_host }}"
    gpus: "{{ saved_gpus }}"

- name: Remove the domain
  nvgrace.passthrough.domain_xml:
    state: absent
    vm:
      name: gpu-vm
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode.
  returned: O(state=present) or O(state=absent)
  type: list
  elements: str
  sample: ["define the domain gpu-vm with validation"]
name:
  description: Name of the domain.
  returned: O(state=present) or O(state=rendered)
  type: str
xml:
  description: The XML as rendered.
  returned: O(state=present) or O(state=rendered)
  type: str
dest:
  description: The file that holds the XML, or null.
  returned: O(state=present)
  type: str
defined_xml:
  description: The inactive definition as libvirt has it, or would have it in check mode.
  returned: O(state=present) with O(define=true)
  type: str
restart_required:
  description: Whether the domain is running with something else than its definition.
  returned: O(state=present) with O(define=true), and O(state=absent)
  type: bool
qemu_argv:
  description: The command line with which libvirt would start QEMU. Null where libvirt cannot tell, with a warning.
  returned: when the definition changes
  type: list
  elements: str
features:
  description: The choices that were made, each with its reason.
  returned: O(state=present) or O(state=rendered)
  type: list
  elements: dict
  contains:
    name:
      description: What the choice is about.
      type: str
    used:
      description: The way that was taken.
      type: str
    why:
      description: The reason.
      type: str
  sample:
    - name: mmio-window
      used: qemu:commandline
      why: this libvirt has no element for it
warnings:
  description: What does not stop the VM from being defined and still matters.
  returned: when there is something
  type: list
  elements: str
broken:
  description: All rules that the domain would break, when one of them stopped the run.
  returned: on such a failure
  type: list
  elements: str
elapsed:
  description: Seconds of the work on the host, without the connection and the wait for another run.
  returned: O(state=present) or O(state=absent)
  type: float
  sample: 0.21
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.module import Module
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.runner import run_module
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.converge import (
    Wanted,
    make_absent,
    make_present,
    recorded_names,
)
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.request import parse_name
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.spec import ARGUMENT_SPEC, REQUIRED_IF


def work(module: AnsibleModule, host: Host) -> dict[str, Any]:
    params = module.params
    # the controller has checked it, and a name goes into virsh's script
    name = parse_name(params["vm"]["name"]) if params["vm"] else None
    if params["state"] == "absent":
        names = recorded_names(host) if name is None else [name]
        return make_absent(host, names, module.check_mode)
    # popped, because it would travel back to the controller in the result's invocation
    xml = params.pop("_xml")
    if name is None or not xml:
        raise PassthroughError("The domain did not arrive: call nvgrace.passthrough.domain_xml by its full name, so "
                               "that its action plugin can render it.")
    wanted = Wanted(name, xml, params["define"], params["dest"] or "", params["autostart"])
    result = make_present(host, wanted, module.check_mode)
    for warning in result.pop("warnings", []):
        module.warn(warning)
    return result


def main() -> None:
    module = Module(argument_spec=dict(ARGUMENT_SPEC, _xml={"type": "str"}), required_if=REQUIRED_IF,
                    supports_check_mode=True)
    run_module(module, work)


if __name__ == "__main__":
    main()
