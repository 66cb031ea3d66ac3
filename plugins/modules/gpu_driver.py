# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_driver
short_description: Bind GPUs to their VFIO driver, or give them back
version_added: 1.0.0
description:
  - Moves the listed GPUs, and the functions of their IOMMU groups that O(group_consent) names, to a VFIO driver with
    C(driver_override). All of them leave their drivers before the first one is bound.
  - Everything is checked before anything is changed. A function of a group that nobody consented to, a device that
    somebody uses, a missing IOMMU or a group that isolates nothing stops the run.
  - The driver link is read back after each bind. When a step fails, the functions get their previous drivers again, and
    the message says what could not be put back.
  - What was before is recorded in C(/var/lib/nvgrace-passthrough), so that O(state=released) gives back exactly that.
    A previous driver whose module is not loaded is loaded again.
  - Warns where a file by another hand contradicts a persistent binding, with the file and the line. These are udev
    rules that set C(driver_override) of the function, C(/etc/driverctl.d), the ids of vfio-pci in C(modprobe.d) and on
    the kernel command line, an C(install), C(softdep) or C(blacklist) line for the chosen module, and lists that load a
    driver of the host before udev runs.
  - Warns where a function is in another IOMMU group than at the last run. Consent is asked of the group as it is now.
  - Warns of GPUs that an earlier run bound and O(gpus) does not name any more; they stay until they are released.
  - Warns of libvirt domains, whoever has defined them, that name a function which is given back.
  - The module sets neither C(allow_unsafe_interrupts) nor the no-IOMMU mode of VFIO, and binds nothing on a host where
    one of them is on, or where C(pcie_acs_override) on the kernel command line makes up IOMMU groups.
options:
  state:
    description:
      - V(bound) binds. It needs O(gpus).
      - V(released) gives the driver, the C(driver_override) and all files back as they are recorded. Without O(gpus)
        it does that for all recorded functions; with it, the functions that were bound along with a GPU follow it.
    type: str
    choices: [bound, released]
    default: bound
  driver:
    description:
      - V(auto) takes the variant that libvirt would take, the most specific C(vfio_pci) alias of the installed modules.
      - Otherwise the name of a VFIO driver or of its module, for the GPUs. Other functions of the group always get
        what V(auto) means for them.
    type: str
    default: auto
  persistent:
    description:
      - Bind again at each boot, with a udev rule file for each function and C(/etc/modules-load.d). A rule is for one
        address with one vendor and device id.
      - A driver that was loaded before the function appeared, and has taken it by then, is made to let go of it. That
        happens once for each appearance, before anybody can use it.
      - A file is written after the bind has worked.
    type: bool
    default: true
  group_consent:
    description:
      - Addresses of functions that may be bound because a GPU has them in its IOMMU group. Bridges need none.
      - The audio, USB and USB-C functions of a card need it as well, although they are parts of the card. Nothing is
        taken from the host that was not listed.
    type: list
    elements: str
    default: []
  in_use:
    description:
      - What to do when a process, a VM or the console uses a device, its memory is online, an interface of it is up, or
        a disk of it is mounted.
      - V(wait) waits for at most O(timeout). Nobody is ended.
    type: str
    choices: [fail, wait]
    default: fail
  timeout:
    description:
      - Seconds to wait for users to go, and for each unbind and bind in the kernel.
      - A GPU that says by CXL how long its memory may take to be ready, at most 257 seconds, gets that for its bind
        where it is longer.
    type: int
    default: 60
  device_group:
    description:
      - Name of the user group whose members may open the device nodes of the functions, C(/dev/vfio/N) and
        C(/dev/vfio/devices/vfioN), with mode 0660. It must exist.
      - The udev rule file of each function says so by the function's address, whatever number its IOMMU group has.
        With O(persistent=false) there is no rule, and the nodes have the group until they are made anew.
      - Without it they are root's alone, which is right for libvirt, because it gives each QEMU nodes of its own.
        Nodes that another rule opens to everybody are warned of.
    type: str
  planned_modules:
    description:
      - The RV(nvgrace.passthrough.dkms_module#module:provides) list of M(nvgrace.passthrough.dkms_module), so that a
        check run knows a driver that a real run would have installed by now. Without check mode it is ignored.
    type: list
    elements: dict
    default: []
    suboptions:
      module:
        description: Name of the module.
        type: str
        required: true
      driver:
        description: Name of its directory in sysfs.
        type: str
        required: true
      aliases:
        description: Its aliases that begin with C(vfio_pci:).
        type: list
        elements: str
        default: []
author:
  - The nvgrace.passthrough contributors (@nvgrace-passthrough)
extends_documentation_fragment:
  - nvgrace.passthrough.attributes
  - nvgrace.passthrough.attributes.changes
  - nvgrace.passthrough.attributes.gpus
  - nvgrace.passthrough.attributes.survey
seealso:
  - module: nvgrace.passthrough.gpu_info
  - module: nvgrace.passthrough.region_verify
"""

EXAMPLES = r"""
- name: Bind one GPU of a Grace host
  nvgrace.passthrough.gpu_driver:
    gpus:
      - address: "0009:01:00.0"

- name: Bind a card with its audio function
  nvgrace.passthrough.gpu_driver:
    gpus:
      - address: "0000:41:00.0"
    group_consent: ["0000:41:00.1"]
    in_use: wait
    timeout: 300

- name: Let the members of a group run QEMU with it
  nvgrace.passthrough.gpu_driver:
    gpus:
      - address: "0009:01:00.0"
    device_group: vfio

- name: Give everything back
  nvgrace.passthrough.gpu_driver:
    state: released
"""

RETURN = r"""
devices:
  description: One item for each function that was looked at. In check mode what a real run would reach.
  returned: success
  type: list
  elements: dict
  contains:
    address:
      description: Full PCI address.
      type: str
    group:
      description: IOMMU group, none while it is not known.
      type: int
    persistent:
      description: Whether the function is bound again at the next boot.
      type: bool
    device_group:
      description: The user group that has its device nodes, none where they are root's alone.
      type: str
    before:
      description: Driver and C(driver_override) before the run.
      type: dict
    after:
      description: Driver and C(driver_override) after the run.
      type: dict
actions:
  description: What was done, or in check mode would be done, step by step.
  returned: always
  type: list
  elements: str
remains:
  description:
    - What could not be put back after a failure, as sentences. A module that was loaded stays loaded; RV(actions) and
      the message name it.
  returned: failure while binding
  type: list
  elements: str
in_use:
  description: Addresses of the functions that are in use.
  returned: failure because of it
  type: list
  elements: str
elapsed:
  description: Seconds of the work on the host, without the connection and the wait for another run.
  returned: success
  type: float
  sample: 0.21
"""

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.stage import run_stage
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.stage_driver import GPU_DRIVER


def main() -> None:
    run_stage(GPU_DRIVER)


if __name__ == "__main__":
    main()
