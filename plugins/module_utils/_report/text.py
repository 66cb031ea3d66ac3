# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text for people: the table of regions and the BAR map of each GPU. Pure: data in, lines out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_UNITS = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))
_MAP_WIDTH = 48
_HEADER = ("index", "region", "role", "reported", "actual", "flags", "verdict")


def human_size(size: int) -> str:
    """``size`` bytes in the largest binary unit, with the digits that it needs and at most two decimals."""
    for unit, factor in _UNITS:
        if size >= factor:
            value = f"{size / factor:.2f}".rstrip("0").rstrip(".")
            return f"{value} {unit}"
    return f"{size} B"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns padded to their widest cell, with a rule under the header."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [header, *rows]]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def region_table(regions: Sequence[Mapping[str, Any]]) -> list[str]:
    """The regions that exist, one a row."""
    rows = []
    for region in regions:
        if not region.get("reported"):
            continue
        rows.append((str(region["index"]), region.get("name", ""), region.get("role", ""),
                     human_size(region["reported"]), human_size(region.get("actual") or 0),
                     " ".join(region.get("flags", [])), region.get("verdict", "")))
    return table(_HEADER, rows) if rows else ["no regions were read"]


def bar_map(regions: Sequence[Mapping[str, Any]]) -> list[str]:
    """One bar per BAR, drawn to the scale of its own reported size: ``#`` is memory, ``.`` is hole."""
    lines = []
    for region in regions:
        reported = region.get("reported") or 0
        if not reported or not str(region.get("name", "")).startswith("BAR"):
            continue
        actual = min(region.get("actual") or 0, reported)
        filled = _MAP_WIDTH * actual // reported
        if 0 < actual < reported:
            filled = min(max(filled, 1), _MAP_WIDTH - 1)
        text = f"{region['name']} |{'#' * filled}{'.' * (_MAP_WIDTH - filled)}| {human_size(actual)}"
        if actual < reported:
            text += f" of {human_size(reported)}, hole {human_size(reported - actual)}"
        lines.append(f"{text}  {region.get('role', '')}".rstrip())
    return lines


def gpu_lines(gpu: Mapping[str, Any], device: Mapping[str, Any]) -> list[str]:
    """All that is known of one GPU: ``gpu`` of gpu_info, ``device`` of region_verify; either may be empty."""
    address = device.get("address") or gpu.get("address", "unknown address")
    title = [address, gpu.get("product") or f"{gpu.get('vendor', '')}:{gpu.get('device', '')}"]
    if device.get("driver") or gpu.get("driver"):
        title.append(f"driver {device.get('driver') or gpu.get('driver')}")
    group = device.get("group", gpu.get("iommu_group"))
    if group is not None:
        title.append(f"IOMMU group {group}")
    if not device:
        return ["  ".join(title), "  not verified"]
    source = ", from the record of this boot" if device.get("from_record") else ""
    lines = ["  ".join(title), f"  layout {device.get('layout') or 'unknown'}, verdict {device['verdict']}{source}"]
    lines += [f"  {reason}" for reason in device.get("reasons", [])]
    regions = device.get("regions", [])
    if regions:
        lines += [f"  {line}" for line in region_table(regions)]
        lines += ["  BAR map"] + [f"    {line}" for line in bar_map(regions)]
    return lines


def host_lines(report: Mapping[str, Any]) -> list[str]:
    """The whole report of one host as lines of text."""
    lines = [f"{report['inventory_hostname']}: {report['outcome']}"]
    if report.get("failure"):
        lines.append(f"  {report['failure']}")
        if report.get("after_failure"):
            lines.append(f"  {report['after_failure']}")
    for check in report.get("checks", []):
        if check["status"] != "ok":
            lines.append(f"  {check['status']}{' (accepted)' if check.get('accepted') else ''} [{check['id']}] "
                         f"{check['why']} {check['remedy']}".rstrip())
    if report.get("reboot_required"):
        lines.append("  a reboot is due")
    verified = {device["address"]: device for device in report.get("devices", [])}
    for gpu in report.get("gpus", []):
        lines += ["", *gpu_lines(gpu, verified.get(gpu["address"], {}))]
    for domain in report.get("domains", []):
        lines += ["", f"domain {domain['name']}: {domain['state']}"]
        lines += [f"  {warning}" for warning in domain.get("warnings", [])]
    return lines
