#!/usr/bin/python
# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_info
short_description: Read what decides whether GPU passthrough can work on a host
version_added: 1.0.0
description:
  - Reads the kernel, IOMMU, KVM, NUMA nodes, Secure Boot, DKMS, libvirt, QEMU and the ACPI tables of a host and judges
    them by a fixed list of checks.
  - Changes nothing. To ask KVM for a capability it creates a VM without memory and processors and closes it again. The
    question to libvirt starts its daemon where that is socket activated.
  - No module of this collection sets C(allow_unsafe_interrupts) or the no-IOMMU mode; a host where one of them is on
    fails the check V(allow-unsafe-interrupts).
author:
  - The nvgrace.passthrough contributors (@nvgrace-passthrough)
options:
  profiles:
    description:
      - The profiles of the domains that this host shall have, as in M(nvgrace.passthrough.domain_xml). A check weighs
        what it weighs for the most demanding of them; the table is in C(docs/preflight.md).
      - V(auto) is the best profile that libvirt and QEMU of this host can have. V(none), and an empty list, are for
        GPUs that something else gives to VMs, so that nothing is asked of libvirt and QEMU.
    type: list
    elements: str
    choices: [auto, native, no-accel, compat, x86, none]
    default: [auto]
  probe_qemu:
    description:
      - Whether QEMU is started, without a machine, and asked over QMP which devices and options it has.
      - Without it RV(host.qemu_features) is V(null), and the check V(domain-profile) is in doubt.
    type: bool
    default: true
extends_documentation_fragment:
  - nvgrace.passthrough.attributes
  - nvgrace.passthrough.attributes.no_changes
  - nvgrace.passthrough.attributes.survey
notes:
  - Must run as root, because ACPI tables and EFI variables are readable by root only.
  - Sizes are bytes. A value that the host does not tell is V(null) or V(unknown), never a guess.
"""

EXAMPLES = r"""
- name: Read the host
  nvgrace.passthrough.host_info:
  register: passthrough_host
  become: true

- name: Stop where a check fails
  ansible.builtin.assert:
    that: passthrough_host.host.checks | selectattr('status', 'eq', 'fail') | length == 0
    fail_msg: "{{ passthrough_host.host.checks | selectattr('status', 'eq', 'fail') | map(attribute='why') | list }}"
"""

RETURN = r"""
host:
  description: The facts of the host.
  returned: success
  type: dict
  contains:
    kernel:
      description:
        - Release, version string, machine, page size in bytes and command line of the running kernel.
        - C(config) has the build options that matter here, without C(CONFIG_); V(null) where no configuration is
          readable.
      type: dict
      returned: success
      sample:
        release: 7.3.4+deb13-arm64
        machine: aarch64
        page_size: 4096
        cmdline: root=/dev/vda rw
        config: {"NODES_SHIFT": 4, "IOMMUFD": "n", "NVGRACE_GPU_VFIO_PCI": "n"}
    headers:
      description: Path and presence of the running kernel's headers, and the package that has them.
      type: dict
      returned: success
      sample: {"path": "/lib/modules/7.3.4+deb13-arm64/build", "present": true,
               "package": "linux-headers-7.3.4+deb13-arm64"}
    distribution:
      description: C(id), C(version_id) and C(like) of C(/etc/os-release).
      type: dict
      returned: success
      sample: {"id": "debian", "version_id": "13", "like": []}
    bootloader:
      description:
        - C(kind) is V(grub), V(systemd-boot), V(bls), V(unknown) or V(none); C(dropin_dir) is where arguments are
          added.
      type: dict
      returned: success
      sample: {"kind": "grub", "dropin_dir": "/etc/default/grub.d"}
    iommu:
      description:
        - Presence and kind (V(arm-smmu-v3), V(intel), V(amd), V(unknown), V(none)) of the IOMMU, number of groups, the
          type of domain that most groups have, whether interrupts are isolated, whether C(/dev/iommu) and VFIO device
          nodes exist.
      type: dict
      returned: success
      sample: {"present": true, "kind": "arm-smmu-v3", "groups": 12, "isolated_msi": true, "default_domain": "DMA",
               "iommufd": false, "cdev": false}
    kvm:
      description: Whether C(/dev/kvm) exists, and capability 243 of a VM with the reason where it could not be asked.
      type: dict
      returned: success
      sample: {"present": true, "cacheable_pfnmap": true, "reason": null}
    vfio:
      description: Module parameters that switch isolation off; V(null) while the module is not loaded.
      type: dict
      returned: success
      sample: {"allow_unsafe_interrupts": false, "noiommu": null, "iommufd_allow_unsafe_interrupts": null}
    secure_boot:
      description: V(enabled), V(disabled) or V(unknown).
      type: str
      returned: success
    lockdown:
      description: V(none), V(integrity), V(confidentiality) or V(unknown).
      type: str
      returned: success
    signatures_enforced:
      description: Whether the kernel refuses modules that no trusted key has signed; V(null) where it does not tell.
      type: bool
      returned: success
    module_signature:
      description:
        - Who signed the VFIO module that this kernel would load. C(path) is V(null) where none is installed, C(signer)
          where it is not signed. C(trust) in its key is V(enrolled), V(pending) (it waits for the console),
          V(not-enrolled) or V(unknown).
      type: dict
      returned: success
      sample: {"module": "nvgrace-gpu-vfio-pci",
               "path": "/lib/modules/7.3.4+deb13-arm64/updates/dkms/nvgrace-gpu-vfio-pci.ko.xz",
               "signer": "DKMS module signing key", "key": "2af3", "trust": "not-enrolled"}
    enrolled_keys:
      description:
        - Names of certificates. In the kernel's keyrings (V(null) where they are not readable), of the machine's owner
          (C(mok)), of firmware (C(db)), and of those that wait for the console (C(pending)).
      type: dict
      returned: success
      sample: {"kernel": ["Debian Secure Boot CA"], "mok": [], "db": [], "pending": []}
    hugepages:
      description: The pools, with the size of a page in bytes.
      type: list
      elements: dict
      returned: success
      sample: [{"size": 2097152, "total": 0, "free": 0}]
    memlock_limit:
      description: Hard limit of locked memory of the module's own process in bytes, V(-1) for unlimited.
      type: int
      returned: success
    numa:
      description:
        - The NUMA nodes with processors, memory in bytes, distances and whether they are generic initiators.
        - C(firmware_domains) is the number of proximity domains in the ACPI SRAT.
      type: dict
      returned: success
      sample:
        nodes: [{"id": 0, "cpus": "0-3", "memory": 4294967296, "distances": [10, 80], "generic_initiator": false}]
        firmware_domains: 9
    dkms:
      description: DKMS and its version.
      type: dict
      returned: success
      sample: {"present": true, "version": "3.2.2", "path": "/usr/sbin/dkms"}
    compiler:
      description: The default C compiler.
      type: dict
      returned: success
      sample: {"present": true, "version": "14.2.0", "path": "/usr/bin/gcc"}
    depmod:
      description: The depmod program.
      type: dict
      returned: success
      sample: {"present": true, "version": null, "path": "/usr/sbin/depmod"}
    libvirt:
      description:
        - libvirt's version, whether its daemon runs and whether C(qemu:///system) answers, with the reason if not.
      type: dict
      returned: success
      sample: {"present": true, "version": "11.3.0", "daemon_running": true, "uri_ok": true, "reason": null}
    libvirt_features:
      description: What domain XML can express here, from libvirt's own schema.
      type: dict
      returned: success
      sample: {"ras": true, "clusters": true, "iommu_driver_accel": false, "iommu_driver_cmdqv": false,
               "acpi_nodeset": false, "iommufd": false, "pcihole64_virt": false}
    qemu:
      description: The emulator of the host's own architecture.
      type: dict
      returned: success
      sample: {"present": true, "version": "10.0.13", "path": "/usr/bin/qemu-system-aarch64"}
    qemu_features:
      description: What QEMU says that it has; V(null) with O(probe_qemu=false) or without QEMU.
      type: dict
      returned: success
      sample: {"highmem_mmio_size": true, "acpi_generic_initiator": true, "arm_smmuv3_device": false,
               "arm_smmuv3_accel": false, "arm_smmuv3_cmdqv": false, "iommufd": true, "pasid_fork": false,
               "egm_fork": false}
    firmware:
      description: Whether the host was booted by UEFI, and the UEFI images for its guests in the order of preference.
      type: dict
      returned: success
      sample:
        uefi: true
        images: [{"path": "/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", "vars": "/usr/share/AAVMF/AAVMF_VARS.fd",
                  "secure_boot": false, "format": "raw"}]
    firmware_properties:
      description: Whether ACPI tables name the memory of a coherent GPU, V(present), V(absent) or V(unknown).
      type: str
      returned: success
    conflicting_drivers:
      description: Drivers that would take a GPU for the host, and the addresses of those that each drives now.
      type: list
      elements: dict
      returned: success
      sample: [{"module": "nouveau", "installed": true, "loaded": false, "blacklisted": true, "functions": []}]
    coherent_gpus:
      description: Number of GPUs of products whose memory is coherent, by their PCI ids.
      type: int
      returned: success
    profiles:
      description: The profiles that the checks were weighed for.
      type: list
      elements: str
      returned: success
      sample: ["compat"]
    checks:
      description:
        - The verdicts. C(status) is V(fail) where passthrough cannot work or is not safe, V(warn) where it depends on
          the use of the host or the host does not tell, else V(ok); C(remedy) is V(null) with V(ok).
        - The ids are V(architecture), V(iommu-present), V(isolated-msi), V(allow-unsafe-interrupts), V(iommufd),
          V(vfio-pci), V(page-size), V(kvm-present), V(kvm-cacheable-memory), V(numa-node-limit), V(gpu-numa-nodes),
          V(kernel-headers), V(dkms-present), V(compiler-present), V(secure-boot), V(module-signature),
          V(competing-drivers), V(hugepages), V(memlock), V(libvirt-present), V(qemu-present), V(firmware-properties)
          and V(domain-profile).
      type: list
      elements: dict
      returned: success
      sample: [{"id": "iommu-present", "status": "ok", "why": "The IOMMU (arm-smmu-v3) is on and has 12 groups.",
                "remedy": null}]
elapsed:
  description: Seconds of the work on the host, without the connection and the wait for another run.
  returned: success
  type: float
  sample: 0.21
"""

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.stage import run_stage
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.stage_info import HOST_INFO


def main() -> None:
    run_stage(HOST_INFO)


if __name__ == "__main__":
    main()
