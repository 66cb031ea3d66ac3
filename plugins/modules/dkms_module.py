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
      - V(absent) takes every version of the package out of every kernel, with its source, and gives back the modules
        that DKMS had moved away. It refuses while the module drives a device.
    type: str
    choices: [present, absent]
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
    description: Releases of kernels, V(running), or V(installed) for all that are installed.
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
    default: []
  force:
    description: Make all builds anew, always a change.
    type: bool
    default: false
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
  - A build is signed by DKMS with the key that it is configured for. With Secure Boot the certificate has to be
    enrolled at the console.
  - In check mode missing packages and a device that is still bound are warnings, because an earlier task of the same
    run may settle them.
author:
  - The nvgrace.passthrough contributors (@nvgrace-passthrough)
extends_documentation_fragment:
  - nvgrace.passthrough.attributes
  - nvgrace.passthrough.attributes.changes
"""

EXAMPLES = r"""
- name: Build for the running kernel unless it ships a driver that knows the GPU
  nvgrace.passthrough.dkms_module:
    required_ids: ["10de:2342"]

- name: Build for all installed kernels, also where the kernel has a driver of its own
  nvgrace.passthrough.dkms_module:
    kernels: [installed]
    prefer_in_tree: false

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
  returned: O(state=present)
  type: str
kernels:
  description: One item for each kernel.
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
      description: Common name of the certificate that the module is signed with.
      type: str
    build_seconds:
      description: Duration of the build, where this call has built.
      type: float
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
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.module import Module
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.runner import run_module
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.service import ensure


def _work(module: AnsibleModule, host: Host) -> dict[str, Any]:
    parameters = dict(module.params)
    for name in ("_source", "_source_sha256"):
        # They would travel back to the controller in the result's invocation.
        del module.params[name]
    result = ensure(parameters, module.check_mode, host)
    for warning in result.pop("warnings"):
        module.warn(warning)
    return result


def main() -> None:
    module = Module(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "name": {"type": "str", "default": "nvgrace-gpu-vfio-pci"},
            "version": {"type": "str"},
            "kernels": {"type": "list", "elements": "str", "default": ["running"]},
            "prefer_in_tree": {"type": "bool", "default": True},
            "required_ids": {"type": "list", "elements": "str", "default": []},
            "force": {"type": "bool", "default": False},
            "build_timeout": {"type": "int", "default": 1800},
            "source": {"type": "str"},
            "_source": {"type": "str", "no_log": True},
            "_source_sha256": {"type": "str", "no_log": False},
        },
        supports_check_mode=True,
    )
    run_module(module, _work)


if __name__ == "__main__":
    main()
