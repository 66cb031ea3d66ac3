# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dkms_module
short_description: Build and install the nvgrace-gpu-vfio-pci kernel module with DKMS
version_added: 1.0.0
description:
  - Ships the source of the kernel module from the controller, builds it for the wanted kernels with DKMS, installs it.
    Where a kernel has the driver itself, with the ids that are needed, that one is used and nothing is built.
  - With DKMS a new kernel gets the module when its package is installed, signed with the same key pair. It is also
    possible to build once (O(state=exported)) and to hand the signed module out (O(prebuilt)), so that other hosts need
    neither a compiler nor a key.
  - The source is pinned by a SHA-256 over all files. A host that has another source of the same version, or builds of
    one, gets all its builds made anew. C(find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum) in
    C(/usr/src/NAME-VERSION) prints the hash.
  - Half-made states (an interrupted build, a lost link to the source, a damaged or missing module file, an old
    C(modules.dep)) are repaired.
  - The module is neither loaded nor bound here, see M(nvgrace.passthrough.gpu_driver). A module in memory is never
    replaced while it drives a device. RV(reload_required) tells that the running kernel holds another build.
  - A converged host is recognised by reading files, without calling C(dkms).
options:
  state:
    description:
      - V(present) builds and installs where that is due.
      - V(exported) builds for the kernels of other hosts, installs nothing, and keeps the signed modules in O(dest) on
        the controller. The builder needs the headers of those kernels, not the kernels.
      - V(absent) takes every version of the package out of every kernel, with its source, and gives back the modules
        that DKMS had moved away and the settings of DKMS. It refuses while the module drives a device.
    type: str
    choices: [present, exported, absent]
    default: present
  name:
    description: Name of the DKMS package and of its module file.
    type: str
    default: nvgrace-gpu-vfio-pci
  version:
    description:
      - Refuse a source of another version than this one. Without it, the version is what C(dkms.conf) says.
      - With O(state=absent), where all versions that DKMS or our record knows go anyway, a source directory of this
        version goes too.
    type: str
  kernels:
    description:
      - Releases of kernels, V(running), or V(installed) for all that are installed.
      - With O(state=exported) the releases of the hosts that the modules are for.
    type: list
    elements: str
    default: [running]
  prefer_in_tree:
    description: Leave a kernel alone that ships the driver with all O(required_ids).
    type: bool
    default: true
  required_ids:
    description:
      - Ids in the form C(vendor:device) that the kernel's own driver must list to be preferred.
      - They do not restrict the driver that is built. A GPU with an unlisted id can be bound too.
    type: list
    elements: str
  only_if_required:
    description:
      - Where O(required_ids) is given and empty, because no GPU of the host needs the driver, build and install
        nothing, and leave what is there. Cards without coherent memory are given to VMs with C(vfio-pci).
      - Without O(required_ids) it is not known what the GPUs need, and with O(state=exported) the modules are for other
        hosts; this has no effect then.
    type: bool
    default: false
  force:
    description: Make all builds anew, always a change. It has no effect with O(prebuilt).
    type: bool
    default: false
  signing_key:
    description:
      - Private key (PEM, without a passphrase) on the host that builds, absolute path. It must be root's alone, with
        mode 0600 or 0400.
      - DKMS has one key pair for all its packages. This one is set in
        C(/etc/dkms/framework.conf.d/nvgrace-passthrough.conf), so that builds at a kernel upgrade are signed with it
        too, and those of other packages. Where another file there names another pair, this fails.
      - Without it DKMS signs with the pair that it is configured for, or that it makes. What an earlier run set is
        given back then.
      - The key is never copied and never leaves the host. It needs DKMS 3.0 or newer.
    type: str
  signing_certificate:
    description:
      - The certificate of O(signing_key), DER or PEM, on the same host.
      - Another certificate makes all builds anew. RSA and elliptic-curve keys are compared with it; for other kinds
        C(openssl) is asked where it is installed.
    type: str
  certificate_sha256:
    description:
      - SHA-256 of the certificate in DER, 64 digits. A pair with another one is refused, and with O(prebuilt) a module
        that another one has signed counts as missing.
    type: str
  dest:
    description:
      - Absolute path of a directory on the controller, required by O(state=exported).
      - It gets C(KERNEL/MACHINE/manifest.json) and the module beside it.
    type: str
  prebuilt:
    description:
      - Absolute path of the O(dest) of an earlier O(state=exported). The modules for O(kernels) are taken from there
        and nothing is built; they go below C(/lib/modules/KERNEL/updates/nvgrace-passthrough).
      - Before anything is written, SHA-256, name, architecture, vermagic and signature are checked on the host. A
        module that was built from another source than the one that would be shipped counts as missing.
      - A host that has built with DKMS before loses those builds, and gets them again without this option.
      - A new kernel has no module until it is handed one. RV(kernels) lists such kernels, with a warning.
    type: str
  build_timeout:
    description: Seconds that each call of DKMS may take, a build or an installation with its C(depmod).
    type: int
    default: 1800
  source:
    description:
      - Directory on the controller with another C(dkms.conf) and its source. A relative path is looked up as files of
        a role are.
      - Hidden files, build products, Markdown and a directory C(tests) are not sent.
      - By default the source that the collection contains.
    type: str
notes:
  - Where the kernel loads signed modules only, as under Secure Boot, the certificate has to be enrolled, which needs
    the console of the host at its next boot. RV(signing) says whether it is, and lists the steps.
  - DKMS builds for a new kernel when its headers are installed. On Debian and Ubuntu a warning names the package that
    brings them with each new kernel, where it is missing. DKMS builds for a kernel that ships the driver, too; with
    O(prefer_in_tree) the next run gives that kernel its own driver back.
  - O(state=exported) and O(prebuilt) cannot run in the background (async).
  - In check mode missing packages and a device that is still bound are warnings, because an earlier task of the same
    run may settle them.
author:
  - The nvgrace.passthrough contributors (@nvgrace-passthrough)
extends_documentation_fragment:
  - nvgrace.passthrough.attributes
  - nvgrace.passthrough.attributes.changes
  - nvgrace.passthrough.attributes.survey
"""

EXAMPLES = r"""
- name: Build for the running kernel unless it ships a driver that knows the GPU
  nvgrace.passthrough.dkms_module:
    required_ids: ["10de:2342"]

- name: Build nothing on a host whose GPUs, as gpu_info has found, have no coherent memory
  nvgrace.passthrough.dkms_module:
    required_ids: []
    only_if_required: true

- name: Build for all installed kernels, also where the kernel has a driver of its own
  nvgrace.passthrough.dkms_module:
    kernels: [installed]
    prefer_in_tree: false

- name: Build for all installed kernels and sign with a key pair of the site
  nvgrace.passthrough.dkms_module:
    kernels: [installed]
    signing_key: /etc/keys/modules.key
    signing_certificate: /etc/keys/modules.der

- name: Build once, for a kernel of other hosts
  nvgrace.passthrough.dkms_module:
    state: exported
    kernels: ["6.17.0-1008-nvidia-64k"]
    dest: /srv/nvgrace/modules
    signing_key: /etc/keys/modules.key
    signing_certificate: /etc/keys/modules.der
  delegate_to: builder

- name: Hand it out
  nvgrace.passthrough.dkms_module:
    prebuilt: /srv/nvgrace/modules

- name: Remove it
  nvgrace.passthrough.dkms_module:
    state: absent
"""

RETURN = r"""
name:
  description: Name of the DKMS package.
  returned: success
  type: str
version:
  description: Version that was asked for.
  returned: success
  type: str
source_sha256:
  description: Hash of the source that was sent.
  returned: success and O(state) is not V(absent)
  type: str
kernels:
  description:
    - One item for each kernel that was asked for.
    - With O(prebuilt) also one for each other installed kernel that has no copy of the module, in state V(absent).
  returned: success
  type: list
  elements: dict
  contains:
    kernel:
      description: Release of the kernel.
      type: str
    state:
      description: In check mode the state that a real run would reach.
      type: str
      choices: [absent, added, built, installed, in-tree]
    path:
      description: The module file that counts; V(built-in) for a driver in the kernel's image.
      type: str
    srcversion:
      description: Of the module file.
      type: str
    loaded_srcversion:
      description: Of the module in memory, for the running kernel.
      type: str
    signer:
      description: Common name of the issuer of the certificate that the module is signed with.
      type: str
    build_seconds:
      description: Duration of the build, where this call has built.
      type: float
signing:
  description: Who signs, and whether the kernel will load what is signed so.
  returned: success and O(state) is not V(absent)
  type: dict
  contains:
    key_pair:
      description: V(own), V(dkms), V(builder) with O(prebuilt), or null where the kernels' own drivers are used.
      type: str
    secure_boot:
      description: V(enabled), V(disabled), or V(unknown).
      type: str
    lockdown:
      description: V(none), V(integrity), V(confidentiality), or V(unknown).
      type: str
    sig_enforce:
      description: The kernel's own switch for signed modules; null for a kernel without module signatures.
      type: bool
    enforced:
      description: Whether the running kernel loads signed modules only; null where it does not tell.
      type: bool
    certificate:
      description: Path of the certificate on this host; null where it is not there (yet).
      type: str
    certificate_subject:
      description: Its common name.
      type: str
    certificate_sha256:
      description: SHA-256 of its DER bytes.
      type: str
    certificate_state:
      description:
        - V(enrolled), V(not-enrolled), V(pending) where it waits for the console of the next boot, or V(unknown).
        - Firmware's lists (MokListRT, db, MokNew) are compared by SHA-256, the kernel's keys (C(/proc/keys)) by id.
      type: str
    certificate_found_in:
      description: Where it was found, of V(kernel), V(MokListRT) and V(db).
      type: list
      elements: str
    enrolment_steps:
      description: What to do at this host, in order. Empty where nothing is to do.
      type: list
      elements: str
exports:
  description: The manifests of the exported modules, as O(dest) has them. Empty in check mode where a build is due.
  returned: O(state=exported)
  type: list
  elements: dict
missing_prebuilt:
  description: Items with C(kernel) and C(machine), for which O(prebuilt) has no module.
  returned: when that is why it failed
  type: list
  elements: dict
reload_required:
  description: The module in memory is another build than the one that is installed. Reload it or reboot.
  returned: success
  type: bool
provides:
  description: The driver that the wanted kernels now have, for C(planned_modules) of M(nvgrace.passthrough.gpu_driver).
  returned: success
  type: list
  elements: dict
  contains:
    module:
      description: Name of the module.
      type: str
    driver:
      description: Name of the driver's directory in sysfs.
      type: str
    aliases:
      description: The aliases that begin with C(vfio_pci:).
      type: list
      elements: str
other_versions:
  description: Other versions of the package that DKMS keeps.
  returned: success
  type: list
  elements: str
missing_packages:
  description: Packages that a build needs and the host lacks; a real run fails when there are any.
  returned: always
  type: list
  elements: str
build_log:
  description: Path of the log of a failed build.
  returned: when a build failed
  type: str
build_log_tail:
  description: Last 40 lines of it.
  returned: when a build failed
  type: list
  elements: str
kept:
  description: Signing keys that DKMS made during our builds and that stay.
  returned: success
  type: list
  elements: str
actions:
  description: What was done, or in check mode would be done.
  returned: always
  type: list
  elements: str
elapsed:
  description: Seconds of the work on the host, without the connection and the wait for another run.
  returned: success
  type: float
  sample: 0.21
"""

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.stage import run_stage
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.stage import DKMS_MODULE


def main() -> None:
    run_stage(DKMS_MODULE)


if __name__ == "__main__":
    main()
