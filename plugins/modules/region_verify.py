# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: region_verify
short_description: Verify what VFIO really shows of a GPU
version_added: 1.0.0
description:
  - Opens each GPU through VFIO, reads its regions, capabilities and BAR registers, and compares them with the layout
    that the GPU's memory must have. Every verdict comes with its reasons.
  - B(Opening a device resets it), and its first access may wait until the GPU is ready. A device that somebody has open
    is therefore never opened, but reported as V(in-use) with the time of its last verification. Nothing is opened in
    check mode.
  - While that takes long, the controller shows a line every 15 seconds, and the host's journal says which GPU it is and
    how long it may take at most.
  - A verdict is recorded in C(/var/lib/nvgrace-passthrough) with the boot, the driver, its source version and layout,
    the group and the expected memory. While all of that is the same, the next run returns the record and does not open
    the device.
  - The module fails when a verdict is V(fail), with the same data in the result.
  - It works with any VFIO driver and says whose it is. What the kernel's own driver (Linux 6.9 to 7.3) does otherwise
    than this collection's becomes a note and no failure.
options:
  layout:
    description:
      - The layout to require. V(mainline) has the memory in region 4, with a part in region 2 for GPUs that need it.
        V(bar2) has all of it in region 2.
      - V(auto) takes any of the two, and the physical BARs alone for a GPU without coherent memory.
    type: str
    choices: [auto, mainline, bar2]
    default: auto
  probe:
    description:
      - V(none) looks at numbers only.
      - V(read) also reads the ends of the memory, through a mapping and through read, and the hole behind it.
      - V(full) also writes eight bytes at both ends and into the hole; the former are restored. It sizes the BARs by
        their registers in config space, and sees that the hole cannot be mapped.
      - What touches memory runs in a child process, which a bus error may end without harm; the verdict then says so.
    type: str
    choices: [none, read, full]
    default: read
  api:
    description: The kernel interface to use, the IOMMU group or the device's own character device with IOMMUFD.
    type: str
    choices: [auto, group, cdev]
    default: auto
  force:
    description: Open and verify also where a record is still valid.
    type: bool
    default: false
  timeout:
    description:
      - Seconds for each GPU, the wait for its readiness included; the GPUs come one after the other.
      - Without it, as long as the GPU may take to become ready, and 30 more. Drivers wait 30 seconds at most for
        a GPU with a C2C link, and up to 257 for one with a CXL Device DVSEC, which says how long.
    type: int
notes:
  - The emulated hosts of the project have kernels without IOMMUFD, so O(api=cdev) is tested against a model of it only.
  - The memory that is expected is O(gpus[].expected_memory), exactly; or else the nominal figure of the product, from
    which a sixteenth may be missing. Where neither is known, the verdict is V(unchecked) and never V(ok), except for
    C(vfio-pci) on x86 hosts, whose GPUs have no coherent memory.
  - The form of the result is published as C(docs/schemas/verification.schema.json).
author:
  - The nvgrace.passthrough contributors (@nvgrace-passthrough)
extends_documentation_fragment:
  - nvgrace.passthrough.attributes
  - nvgrace.passthrough.attributes.changes
  - nvgrace.passthrough.attributes.gpus
  - nvgrace.passthrough.attributes.survey
seealso:
  - module: nvgrace.passthrough.gpu_driver
  - module: nvgrace.passthrough.gpu_info
"""

EXAMPLES = r"""
- name: Verify a GPU with a known product
  nvgrace.passthrough.region_verify:
    gpus:
      - address: "0009:01:00.0"

- name: Verify again, with writes, and an exact size
  nvgrace.passthrough.region_verify:
    gpus:
      - address: "0009:01:00.0"
        expected_memory: 102542344192
    probe: full
    force: true
"""

RETURN = r"""
devices:
  description: One item for each GPU. All sizes are bytes.
  returned: always, unless nothing could be looked at
  type: list
  elements: dict
  contains:
    address:
      description: Full PCI address.
      type: str
    driver:
      description: Bound driver.
      type: str
    srcversion:
      description: Source version of the driver's module.
      type: str
    implementation:
      description:
        - Whose driver it is. V(collection) is this collection's, known by its module parameter C(layout). V(kernel) is
          the kernel's own, known by being part of the kernel, or by how it answers a config read over several BARs.
      type: str
      choices: [collection, kernel, vfio-pci, other]
    api:
      description: The interface that was used, none where the device was not opened.
      type: str
    layout:
      description:
        - What was recognised, or predicted. None where neither the product nor the expected memory is known, and where
          the kernel's answers cannot be true.
        - V(fallback) is a variant driver that shows no coherent memory, V(plain) is vfio-pci.
      type: str
      choices: [mainline, bar2, fallback, plain]
    verdict:
      description: V(skipped) in check mode, where the sizes are predicted.
      type: str
      choices: [ok, fail, unchecked, in-use, skipped]
    reasons:
      description: Why the verdict is not V(ok), as sentences.
      type: list
      elements: str
    evidence:
      description: What was compared and is as it must be, as sentences.
      type: list
      elements: str
    notes:
      description: What is known of the kernel's own driver and was seen, as sentences.
      type: list
      elements: str
    verified_at:
      description: Time of the verification, ISO 8601 in UTC.
      type: str
    from_record:
      description: Whether the data is that of an earlier verification.
      type: bool
    memory:
      description: Total of the coherent memory.
      type: dict
      contains:
        expected:
          description: What had to be there.
          type: int
        seen:
          description: What VFIO shows, none where the device was not opened.
          type: int
        source:
          description: Where the expectation comes from.
          type: str
          choices: [expected_memory, product, none]
    regions:
      description: The regions 0 to 8 that VFIO answers for; predicted ones where the device was never opened.
      type: list
      elements: dict
      contains:
        index:
          description: Index of the region.
          type: int
        name:
          description: BAR0 to BAR5, ROM, CONFIG or VGA.
          type: str
        role:
          description: What it is made of.
          type: str
          choices: [usemem, resmem, physical, rom, config, vga, absent]
        reported:
          description: Size that VFIO reports, a power of two for a BAR.
          type: int
        actual:
          description: Size that exists and can be mapped.
          type: int
        flags:
          description: Of read, write, mmap, caps.
          type: list
          elements: str
        sparse:
          description: The areas that can be mapped, each with offset and size.
          type: list
          elements: dict
        offset:
          description: Position of the region in the device file.
          type: int
        bar_register:
          description: Value of the BAR register in config space.
          type: str
        verdict:
          description: Verdict on the region.
          type: str
          choices: [ok, fail, skipped]
        reasons:
          description: What is wrong with it, as sentences.
          type: list
          elements: str
        evidence:
          description: What was compared and is as it must be, as sentences.
          type: list
          elements: str
actions:
  description: The devices that were opened, or in check mode would be opened.
  returned: always, unless nothing could be looked at
  type: list
  elements: str
elapsed:
  description: Seconds of the work on the host, without the connection and the wait for another run.
  returned: success
  type: float
  sample: 0.21
"""

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.stage import run_stage
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio.stage import REGION_VERIFY


def main() -> None:
    run_stage(REGION_VERIFY)


if __name__ == "__main__":
    main()
