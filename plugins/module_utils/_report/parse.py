# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the value object of a host's record out of its JSON. Pure; everything that is alien raises AlienError."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Optional

from .fields import AlienError, Fields
from .model import SCHEMA_VERSION
from .record import (
    OUTCOMES,
    STAGES,
    Area,
    Check,
    Domain,
    Gpu,
    Link,
    Node,
    Record,
    Region,
    Stage,
    Verified,
)
from .text import human_size

_STATUSES = ("ok", "warn", "fail")


def parse_record(raw: Any) -> Record:
    """The record of one host from what json.loads returned."""
    fields = Fields(raw, "")
    if not fields.has("schema_version") or not fields.has("inventory_hostname"):
        raise AlienError("it is not the record of a host, which has schema_version and inventory_hostname.")
    version = fields.whole("schema_version", 0)
    if version != SCHEMA_VERSION:
        raise AlienError(f"its schema_version is {version}, and this version of the collection reads {SCHEMA_VERSION}.")
    outcome = fields.one_of("outcome", OUTCOMES)
    host = fields.text("inventory_hostname")
    if not host.strip():
        raise AlienError("inventory_hostname is empty.")
    facts = fields.object("host")
    return Record(
        host=host,
        made_at=_time(fields.text("generated_at")),
        outcome=outcome,
        failure=fields.text("failure", ""),
        after_failure=fields.text("after_failure", ""),
        reboot_required=fields.flag("reboot_required"),
        kernel=facts.object("kernel").text("release", ""),
        facts=_facts(facts),
        checks=tuple(_check(item) for item in fields.objects("checks")),
        gpus=_gpus(fields),
        nodes=tuple(_node(item) for item in facts.object("numa").objects("nodes")),
        stages=tuple(_stage(name, fields.object("stages").object(name)) for name in STAGES),
        domains=tuple(_domain(item) for item in fields.objects("domains")),
    )


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise AlienError(f"generated_at is {text!r}, which is no time of ISO 8601.") from error
    if found.tzinfo is None:
        raise AlienError(f"generated_at is {text!r}, which has no time zone.")
    try:
        return found.astimezone(timezone.utc)
    except OverflowError as error:
        raise AlienError(f"generated_at is {text!r}, which is out of range.") from error


def _facts(host: Fields) -> tuple[tuple[str, str], ...]:
    """What decides about passthrough on this host, as lines for people. A fact that is not there has no line."""
    kernel, iommu, release = host.object("kernel"), host.object("iommu"), host.object("distribution")
    page = kernel.whole("page_size", 0)
    pools = [f"{pool.whole('total', 0)} of {human_size(pool.whole('size', 0))}" for pool in host.objects("hugepages")
             if pool.whole("total", 0)]
    signature = host.object("module_signature")
    groups = f"{iommu.whole('groups', 0)} groups" if iommu.has("groups") else ""
    lines = (
        ("Kernel", _join(kernel.text("release", ""), kernel.text("machine", ""))),
        ("Distribution", _join(release.text("id", ""), release.text("version_id", ""), separator=" ")),
        ("Page size", human_size(page) if page > 0 else ""),
        ("IOMMU", _join(iommu.text("kind", ""), groups, iommu.text("default_domain", ""),
                        "IOMMUFD" if iommu.flag("iommufd") else "")),
        ("libvirt", host.object("libvirt").text("version", "")),
        ("QEMU", host.object("qemu").text("version", "")),
        ("DKMS", host.object("dkms").text("version", "")),
        ("Secure Boot", _join(host.text("secure_boot", ""),
                              f"lockdown {host.text('lockdown')}" if host.has("lockdown") else "")),
        ("Module signed by", signature.text("signer", "")),
        ("Hugepages", ", ".join(pools)),
        ("Profiles", ", ".join(host.texts("profiles"))),
        ("Kernel arguments", kernel.text("cmdline", "")),
    )
    return tuple((label, value) for label, value in lines if value)


def _join(*parts: str, separator: str = ", ") -> str:
    return separator.join(part for part in parts if part)


def _check(fields: Fields) -> Check:
    return Check(fields.text("id"), fields.one_of("status", _STATUSES), fields.text("why", ""),
                 fields.text("remedy", ""), fields.flag("accepted"))


def _gpus(fields: Fields) -> tuple[Gpu, ...]:
    """Those that gpu_info found, with what region_verify said; a device that only the latter names comes, too."""
    described = {item.text("address"): item for item in fields.objects("gpus")}
    verified = {item.text("address"): item for item in fields.objects("devices")}
    empty = Fields({}, "")
    return tuple(_gpu(address, described.get(address, empty), verified.get(address))
                 for address in sorted({*described, *verified}))


def _gpu(address: str, gpu: Fields, device: Optional[Fields]) -> Gpu:
    """The driver is that of the device, which was read after the bind."""
    seen = device or Fields({}, "")
    ids = f"{gpu.text('vendor')}:{gpu.text('device')}" if gpu.has("vendor") and gpu.has("device") else "unknown"
    members = [_join(member.text("address"), member.text("kind", ""), member.text("driver", ""), separator=" ")
               for member in gpu.objects("group_members") if member.text("address") != address]
    return Gpu(
        address=address,
        product=gpu.text("product", ids),
        driver=seen.text("driver", gpu.text("driver", "")),
        version=seen.text("srcversion", ""),
        override=gpu.text("driver_override", ""),
        variant=gpu.object("best_variant").text("module", ""),
        group=gpu.maybe_whole("iommu_group"),
        members=tuple(members),
        node=gpu.whole("numa_node", -1),
        initiators=gpu.wholes("generic_initiator_nodes"),
        link=_link(gpu.object("link")) if gpu.has("link") else None,
        bars=tuple(entry.whole("size", 0) for entry in gpu.objects("bars")),
        state=gpu.text("state", ""),
        used_by=gpu.texts("in_use_because"),
        reset_methods=gpu.texts("reset_methods"),
        verified=_verified(device) if device else None,
    )


def _link(fields: Fields) -> Link:
    return Link(fields.maybe_number("speed") or 0.0, fields.whole("width", 0), fields.maybe_number("max_speed") or 0.0,
                fields.whole("max_width", 0))


def _verified(device: Fields) -> Verified:
    memory = device.object("memory")
    return Verified(
        verdict=device.text("verdict"),
        layout=device.text("layout", ""),
        api=device.text("api", ""),
        implementation=device.text("implementation", ""),
        reasons=device.texts("reasons"),
        verified_at=device.text("verified_at", ""),
        from_record=device.flag("from_record"),
        memory_seen=memory.maybe_whole("seen", least=0),
        memory_expected=memory.maybe_whole("expected", least=0),
        regions=tuple(_region(item) for item in device.objects("regions")),
    )


def _region(fields: Fields) -> Region:
    sparse = tuple(Area(max(0, area.whole("offset", 0)), max(0, area.whole("size", 0)))
                   for area in fields.objects("sparse"))
    return Region(fields.whole("index", -1), fields.text("name", ""), fields.text("role", ""),
                  max(0, fields.whole("reported", 0)), max(0, fields.whole("actual", 0)), fields.texts("flags"), sparse,
                  fields.text("verdict", ""), fields.texts("reasons"))


def _node(fields: Fields) -> Node:
    return Node(fields.whole("id", -1), fields.text("cpus", ""), max(0, fields.whole("memory", 0)),
                fields.wholes("distances"), fields.flag("generic_initiator"))


def _stage(name: str, fields: Fields) -> Stage:
    return Stage(name, fields.flag("ran"), fields.flag("changed"), fields.texts("actions"),
                 fields.maybe_number("seconds"))


def _domain(fields: Fields) -> Domain:
    return Domain(fields.text("name"), fields.text("state", ""), fields.texts("warnings"),
                  fields.flag("restart_required"))
