# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Descriptions in range, with hosts and GPUs of every kind, for hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.model import GIB, TIB
from ansible_collections.nvgrace.passthrough.tests.unit._domain.descriptions import (
    blackwell_gpus,
    grace_host,
    h100,
    native_host,
    no_accel_host,
    vm,
    x86_card,
    x86_host,
)

Case = dict[str, Any]

GRACE_HOSTS = (grace_host(2, 2), no_accel_host(2, 2), no_accel_host(2, 2, iommufd=True), native_host(2, 2))
X86_GPUS = [x86_card(), *(h100(f"0000:{bus:02x}:00.0", bus // 0x80) for bus in (0x91, 0xa1, 0xb1))]
# XML has no way to write control characters; the others must come out as they went in
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=12)

_COMMON = {
    "vcpus": st.integers(1, 30).map(lambda half: 2 * half),
    "memory": st.integers(1, 512).map(lambda gib: f"{2 * gib}GiB"),
    "gpus": st.integers(1, 4),
    "pinning": st.sampled_from(["auto", "none"]),
    "host_nodes": st.sampled_from([[], [0], [1], [0, 1], [1, 0]]),
    "disks": st.integers(0, 16).flatmap(lambda count: st.lists(st.fixed_dictionaries({
        "path": st.one_of(TEXT.map(lambda text: f"/img/{text}"), st.just("/dev/vg/lv")),
        "format": st.sampled_from(["raw", "qcow2"])}), min_size=count, max_size=count)),
    "networks": st.integers(0, 8).map(lambda count: [{"network": "default"}] * count),
    "kernel": st.one_of(st.none(), TEXT.map(lambda text: {"path": "/boot/vmlinuz", "initrd": "/boot/initrd",
                                                          "cmdline": f"console=tty0 {text}"})),
    "serial_log": st.one_of(st.none(), TEXT.map(lambda text: f"/var/log/{text}")),
    "autostart": st.sampled_from([None, True, False]),
}
_GRACE = {**_COMMON, "hugepages": st.sampled_from([None, "2M", "512M"]),
          "generic_initiators": st.sampled_from(["auto", "none"])}
_X86 = {**_COMMON, "hugepages": st.sampled_from([None, "1G"]), "type": st.sampled_from(["kvm", "qemu"])}


def _grace_case(changes: dict[str, Any], host: dict[str, Any], device: str, memory: int, queues: bool) -> Case:
    gpus = [{**gpu, "expected_memory": memory} for gpu in blackwell_gpus(device, 4)]
    queues = queues and bool(changes["hugepages"]) and bool(host["qemu_features"].get("arm_smmuv3_cmdqv"))
    return {"vm": vm(**changes, cmdqv=queues), "host": host, "gpus": gpus, "regions": []}


GRACE_IN_RANGE = st.builds(_grace_case, st.fixed_dictionaries(_GRACE), st.sampled_from(GRACE_HOSTS),
                           st.sampled_from(["2941", "31c2"]),
                           st.integers(1, 8 * TIB // GIB // 10).map(lambda gib: gib * GIB), st.booleans())
X86_IN_RANGE = st.fixed_dictionaries(_X86).map(lambda changes: {
    "vm": vm(**changes), "host": x86_host(), "gpus": X86_GPUS, "regions": []})
CASES_IN_RANGE = st.one_of(GRACE_IN_RANGE, X86_IN_RANGE)
