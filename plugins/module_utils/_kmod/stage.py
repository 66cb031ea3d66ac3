# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""dkms_module apart from AnsibleModule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._core.host import Host
from .._core.runner import LOCK_SECONDS
from .._core.stage import Asked, Stage
from .service import ensure


def _work(module: Asked, host: Host) -> dict[str, Any]:
    parameters = dict(module.params)
    for name in ("_source", "_source_sha256", "_have", "_prebuilt", "_aliases", "_modules"):
        # They would travel back to the controller in the result's invocation.
        del module.params[name]
    result = ensure(parameters, module.check_mode, host)
    for warning in result.pop("warnings"):
        module.warn(warning)
    return result


def _lock_seconds(parameters: Mapping[str, Any]) -> float:
    """Many hosts may ask one builder at once, and each has to wait for the builds of the others."""
    patience = parameters["build_timeout"] if parameters["state"] == "exported" else 0
    return float(max(LOCK_SECONDS, patience))


DKMS_MODULE = Stage(
    name="dkms_module",
    options={
        "state": {"type": "str", "choices": ["present", "exported", "absent"], "default": "present"},
        "name": {"type": "str", "default": "nvgrace-gpu-vfio-pci"},
        "version": {"type": "str"},
        "kernels": {"type": "list", "elements": "str", "default": ["running"]},
        "prefer_in_tree": {"type": "bool", "default": True},
        "required_ids": {"type": "list", "elements": "str"},
        "only_if_required": {"type": "bool", "default": False},
        "force": {"type": "bool", "default": False},
        "build_timeout": {"type": "int", "default": 1800},
        "signing_key": {"type": "str", "no_log": False},
        "signing_certificate": {"type": "str"},
        "certificate_sha256": {"type": "str"},
        "dest": {"type": "str"},
        "prebuilt": {"type": "str"},
        "source": {"type": "str"},
        "_source": {"type": "str", "no_log": True},
        "_source_sha256": {"type": "str", "no_log": False},
        "_have": {"type": "dict"},
        "_prebuilt": {"type": "list", "elements": "dict"},
        "_aliases": {"type": "list", "elements": "str"},
        "_modules": {"type": "str", "no_log": True},
    },
    work=_work,
    lock_seconds=_lock_seconds,
    rules={
        "required_together": [("signing_key", "signing_certificate")],
        "required_if": [("state", "exported", ["dest"])],
        "mutually_exclusive": [("prebuilt", "signing_key"), ("prebuilt", "dest")],
    },
)
