#!/usr/bin/python
# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_config
short_description: Prepare a host for GPU passthrough, and give it back
version_added: 1.0.0
description:
  - Sets kernel arguments, module blacklist and options, modules to load, hugepages and the limit of locked memory, all
    in one plan.
  - Each file that it touches is kept first, with mode and owner, in C(/var/lib/nvgrace-passthrough/host.json). A
    setting that is no longer wanted, and O(state=absent), give the file back byte for byte.
  - A run that was interrupted is completed by the next one.
  - It never switches C(allow_unsafe_interrupts) or the no-IOMMU mode on, and refuses arguments that would, or that
    would switch an IOMMU or interrupt remapping off.
author:
  - The nvgrace.passthrough contributors (@nvgrace-passthrough)
options:
  state:
    description:
      - V(present) makes the host what the other options say; an option that is left out gives back what an earlier run
        set.
      - V(absent) gives everything back. Modules that were loaded stay loaded until the next boot.
    type: str
    choices: [present, absent]
    default: present
  kernel_arguments:
    description:
      - Arguments of the form C(name) or C(name=value) for the kernel's command line.
      - On Debian and Ubuntu with GRUB they go into C(/etc/default/grub.d/71-nvgrace-passthrough.cfg), with systemd-boot
        into C(/etc/kernel/cmdline).
      - On hosts with boot loader entries and C(grubby) (RHEL and its relatives) C(grubby --update-kernel=ALL) changes
        the entries that exist, the rescue entry among them, and C(/etc/default/grub) and C(/etc/kernel/cmdline), where
        they exist, get them for new kernels. B(This was not run on such a host); RV(untested) says so.
      - The menu that the boot loader's program wrote is read back; an argument that is not there is an error.
      - With another boot loader, or none, arguments that the running kernel already has are fine and others are refused
        with a sentence that says what to do by hand.
    type: list
    elements: str
    default: []
  kernel_settings:
    description:
      - Kernel arguments by what they mean, spelled for the processor of the host. V(unmanaged) leaves one alone.
      - One that means nothing on this processor is passed over, so that a mixed fleet can share the settings;
        RV(kernel_arguments) says what a host gets.
    type: dict
    suboptions:
      iommu:
        description:
          - On Intel V(enabled) is C(intel_iommu=on). V(auto) is that only where the IOMMU is off without it.
          - Arm's SMMU and AMD's IOMMU are on wherever firmware describes them and have no such argument.
        type: str
        choices: [unmanaged, auto, enabled]
        default: unmanaged
      iommu_passthrough:
        description:
          - C(iommu.passthrough=1) or C(=0), also known as C(iommu=pt) and C(iommu=nopt) on x86. V(enabled) lets drivers
            of the host bypass the IOMMU; devices of VMs are translated with both.
        type: str
        choices: [unmanaged, enabled, disabled]
        default: unmanaged
      iommu_strict:
        description: C(iommu.strict=1) or C(=0). V(disabled) flushes the IOMMU's TLB in batches.
        type: str
        choices: [unmanaged, enabled, disabled]
        default: unmanaged
      init_on_alloc:
        description: C(init_on_alloc=1) or C(=0). V(disabled) does not clear memory when the kernel allocates it.
        type: str
        choices: [unmanaged, enabled, disabled]
        default: unmanaged
      numa_balancing:
        description: C(numa_balancing=enable) or C(=disable), the moving of pages between nodes.
        type: str
        choices: [unmanaged, enabled, disabled]
        default: unmanaged
      transparent_hugepage:
        description: C(transparent_hugepage=).
        type: str
        choices: [unmanaged, always, madvise, never]
        default: unmanaged
      preempt:
        description: C(preempt=). V(lazy) needs Linux 6.13.
        type: str
        choices: [unmanaged, none, voluntary, full, lazy]
        default: unmanaged
      pci_realloc:
        description: C(pci=realloc=on) or C(off), whether the kernel may place BARs anew that firmware left too little
          room for.
        type: str
        choices: [unmanaged, enabled, disabled]
        default: unmanaged
      pcie_bus:
        description: C(pci=pcie_bus_...), how the maximum payload size is chosen.
        type: str
        choices: [unmanaged, tune_off, safe, perf, peer2peer]
        default: unmanaged
      power_cap:
        description: C(acpi_power_meter.force_cap_on=y), on arm64 only.
        type: str
        choices: [unmanaged, enabled]
        default: unmanaged
  modprobe_blacklist:
    description: Modules that may not load by themselves.
    type: list
    elements: str
    default: []
  modprobe_options:
    description: Lines of C(modprobe.d) that begin with C(options) or C(softdep).
    type: list
    elements: str
    default: []
  modules_load:
    description: Modules that are loaded at boot, and now where they are not loaded yet.
    type: list
    elements: str
    default: []
  hugepages:
    description:
      - A pool of hugepages. It is resized at once and early at each boot.
      - Where memory is too fragmented for all pages, RV(reboot_required) says so.
    type: dict
    suboptions:
      size:
        description: Size of one page, as V(2M), V(512M), V(1G) or in bytes.
        type: str
        required: true
      count:
        description: Number of pages.
        type: int
        required: true
  memlock:
    description:
      - Limit of locked memory, as V(unlimited), V(64G) or in bytes, for root, the group C(kvm) and libvirt's daemon.
      - libvirt raises the limit of its VMs itself; this is for VMs that are started by hand and for hardened units.
    type: str
  hold_kernel:
    description:
      - Keeps apt from bringing a newer kernel, by pinning the packages that have a flavour and no version in their
        names (C(linux-image-arm64), C(linux-nvidia-64k)) in C(/etc/apt/preferences.d/71-nvgrace-passthrough).
      - Packages of one kernel can still be installed, the headers of the running one among them, and security updates
        of other packages go on. A kernel that is already installed and not booted yet is not removed.
      - A host without apt refuses V(true).
    type: bool
    default: false
  update_initramfs:
    description:
      - With V(auto) the initramfs images of all kernels are made again when the blacklist or the module options have
        changed and the host has C(update-initramfs), or C(dracut) with images of its own (RHEL; B(this was not run)).
      - With V(never) they are left alone, for hosts that boot without them.
    type: str
    choices: [auto, never]
    default: auto
extends_documentation_fragment:
  - nvgrace.passthrough.attributes
  - nvgrace.passthrough.attributes.changes
  - nvgrace.passthrough.attributes.survey
notes:
  - Must run as root.
  - It never reboots the host and restarts no service.
"""

EXAMPLES = r"""
- name: Prepare a Grace host
  nvgrace.passthrough.host_config:
    kernel_settings:
      iommu: auto
      init_on_alloc: disabled
      numa_balancing: disabled
    modprobe_blacklist:
      - nouveau
      - nova_core
    modules_load:
      - vfio_pci
    hugepages:
      size: 512M
      count: 64
  register: passthrough_config
  become: true

- name: Reboot only where it is needed
  ansible.builtin.reboot:
  when: passthrough_config.reboot_required

- name: Give the host back
  nvgrace.passthrough.host_config:
    state: absent
  become: true
"""

RETURN = r"""
actions:
  description: What was done, in order; in check mode what would be done.
  returned: always
  type: list
  elements: str
  sample:
    - write /etc/default/grub.d/71-nvgrace-passthrough.cfg
    - run update-grub (kernel arguments)
bootloader:
  description: The boot loader that was found, V(grub), V(systemd-boot), V(bls), V(unknown) or V(none).
  returned: success
  type: str
reboot_required:
  description: Whether a part of the wish is in effect only after a reboot.
  returned: success
  type: bool
reboot_reasons:
  description: One sentence for each part that waits for a reboot.
  returned: success
  type: list
  elements: str
  sample: ["The kernel argument init_on_alloc=0 is not in effect yet."]
restart_services:
  description: Running services that have to be restarted before O(memlock) is in effect for them.
  returned: success
  type: list
  elements: str
  sample: ["libvirtd.service"]
kernel_arguments:
  description: The arguments that the kernel of this host shall have, those of O(kernel_settings) first.
  returned: success
  type: list
  elements: str
  sample: ["numa_balancing=disable", "init_on_alloc=0"]
untested:
  description:
    - What of this wish went a way that was never run on a real host of its kind; it was made from the documentation and
      published output of the programs. A warning says the same.
  returned: success
  type: list
  elements: str
  sample: ["boot loader entries by grubby"]
missing_kernel_arguments:
  description: The arguments that the running kernel does not have and this module cannot add.
  returned: failure by an unknown boot loader
  type: list
  elements: str
elapsed:
  description: Seconds of the work on the host, without the connection and the wait for another run.
  returned: success
  type: float
  sample: 0.21
"""

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.stage import run_stage
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.stage_config import HOST_CONFIG


def main() -> None:
    run_stage(HOST_CONFIG)


if __name__ == "__main__":
    main()
