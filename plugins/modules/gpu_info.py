# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: Find NVIDIA GPUs and everything that must travel with them into a VM
version_added: 1.0.0
description:
  - Reads sysfs, ACPI tables and C(/proc). It opens no device and changes nothing.
  - Without O(gpus) all PCI functions of vendor 10de with a display class are returned. No GPU is an error, as is an
    address that does not exist or belongs to something else.
options: {}
author:
  - The nvgrace.passthrough contributors (@nvgrace-passthrough)
extends_documentation_fragment:
  - nvgrace.passthrough.attributes
  - nvgrace.passthrough.attributes.no_changes
  - nvgrace.passthrough.attributes.gpus
  - nvgrace.passthrough.attributes.survey
seealso:
  - module: nvgrace.passthrough.gpu_driver
  - module: nvgrace.passthrough.region_verify
"""

EXAMPLES = r"""
- name: All NVIDIA GPUs of the host
  nvgrace.passthrough.gpu_info:
  register: found

- name: These two, and fail where there are not exactly two
  nvgrace.passthrough.gpu_info:
    gpus:
      - vendor_device: "10de:2941"
        count: 2
"""

RETURN = r"""
gpus:
  description: The GPUs, sorted by address. All sizes are bytes.
  returned: success
  type: list
  elements: dict
  contains:
    address:
      description: Full PCI address.
      type: str
    vendor:
      description: Vendor id.
      type: str
    device:
      description: Device id.
      type: str
    subsystem:
      description: Subsystem vendor and device id.
      type: str
    class:
      description: PCI class code of 24 bits.
      type: str
    product:
      description: Name of the product, none for an id that is not in the table.
      type: str
    product_key:
      description: Key of the product in the table.
      type: str
    family:
      description: Family of the product.
      type: str
      choices: [grace-hopper, grace-blackwell, x86, unknown]
    coherent:
      description: Whether the product has CPU-coherent memory, which needs the variant driver.
      type: bool
    numa_node:
      description: NUMA node of the function, -1 where firmware names none.
      type: int
    generic_initiator_nodes:
      description: NUMA nodes that firmware (SRAT) reserves for the GPU's memory.
      type: list
      elements: int
    iommu_group:
      description: IOMMU group, none while the kernel has put the function into none.
      type: int
    group_members:
      description: All functions of that group, the GPU itself included.
      type: list
      elements: dict
      contains:
        address:
          description: Full PCI address.
          type: str
        vendor:
          description: Vendor id.
          type: str
        device:
          description: Device id.
          type: str
        class:
          description: PCI class code.
          type: str
        driver:
          description: Bound driver.
          type: str
        kind:
          description:
            - What it is. A bridge needs no consent to be in the group.
            - V(usb-c) is the controller of a card's USB-C connector.
          type: str
          choices: [gpu, audio, usb, usb-c, nvswitch, bridge, other]
    driver:
      description: Bound driver.
      type: str
    driver_override:
      description: The only driver that may take the function, where one is set.
      type: str
    modalias:
      description: The kernel's description of the function for module loading.
      type: str
    best_variant:
      description: The VFIO driver that fits best, by the rule that libvirt uses.
      type: dict
      contains:
        module:
          description: Kernel module.
          type: str
        driver:
          description: Name of its directory in sysfs, which may be spelt differently. None where nothing tells it yet.
          type: str
        source:
          description: File that named it, or V(fallback) for vfio-pci.
          type: str
    bars:
      description: The physical BARs.
      type: list
      elements: dict
      contains:
        index:
          description: Number of the BAR, 0 to 5.
          type: int
        size:
          description: Size.
          type: int
        flags:
          description: Resource flags of the kernel.
          type: str
        prefetchable:
          description: Whether it is prefetchable.
          type: bool
        bits64:
          description: Whether its address has 64 bits.
          type: bool
    link:
      description:
        - The PCIe link, none where the function has none.
        - C(speed) is in GT/s for each lane, C(width) is the number of lanes; C(max_speed) and C(max_width) are what the
          function could have. An idle link may be slower than it can be.
      type: dict
      sample: {"speed": 32.0, "width": 16, "max_speed": 32.0, "max_width": 16}
    reset_methods:
      description: Ways to reset the function, in the kernel's order.
      type: list
      elements: str
    holders:
      description: Processes that have a device node of the function, or of its group, open.
      type: list
      elements: dict
      contains:
        pid:
          description: Process id.
          type: int
        command:
          description: Name of the process.
          type: str
        path:
          description: Device node.
          type: str
        vm:
          description: Name of the virtual machine, where the process is a QEMU.
          type: str
    in_use_because:
      description:
        - Every reason not to take the function from its driver, as sentences.
        - Persistence mode is not among them, because no file shows it; M(nvgrace.passthrough.gpu_driver) asks for it.
      type: list
      elements: str
    console_framebuffer:
      description: Whether the host's console is on it.
      type: bool
    boot_vga:
      description: Whether firmware used it as the primary display.
      type: bool
    state:
      description: V(in-use) where somebody holds it, else V(bound-vfio) where a VFIO driver has it.
      type: str
      choices: [free, in-use, bound-vfio]
elapsed:
  description: Seconds of the work on the host, without the connection and the wait for another run.
  returned: success
  type: float
  sample: 0.21
"""

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.stage import run_stage
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.stage_info import GPU_INFO


def main() -> None:
    run_stage(GPU_INFO)


if __name__ == "__main__":
    main()
