# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ``gpus`` option that several modules share: its argument spec, and which functions it means on a host."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from .._core.errors import PassthroughError
from .model import PciIdentity, parse_address
from .products import Product, product_named, product_of

GPUS_OPTION: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "options": {
        "address": {"type": "str"},
        "vendor_device": {"type": "str"},
        "count": {"type": "int"},
        "expected_memory": {"type": "int"},
        "product": {"type": "str"},
    },
    "mutually_exclusive": [("address", "vendor_device"), ("address", "count")],
    "required_one_of": [("address", "vendor_device")],
}

_VENDOR_DEVICE = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")


@dataclass(frozen=True)
class GpuRequest:
    """One item of the option. ``expected_memory`` in bytes."""

    address: Optional[str] = None
    vendor_device: Optional[str] = None
    count: Optional[int] = None
    expected_memory: Optional[int] = None
    product: Optional[Product] = None


@dataclass(frozen=True)
class SelectedGpu:
    """A GPU of this host that an item of the option means."""

    identity: PciIdentity
    product: Optional[Product]
    expected_memory: Optional[int] = None

    @property
    def address(self) -> str:
        return self.identity.address


def parse_requests(items: Optional[Sequence[Mapping[str, Any]]]) -> Optional[list[GpuRequest]]:
    """The option as value objects; None where it was not given. Raises PassthroughError for a value that no GPU has."""
    if items is None:
        return None
    return [_parse_request(item) for item in items]


def _parse_request(item: Mapping[str, Any]) -> GpuRequest:
    vendor_device = item.get("vendor_device")
    if vendor_device is not None:
        vendor_device = str(vendor_device).strip().lower()
        if not _VENDOR_DEVICE.fullmatch(vendor_device):
            raise PassthroughError(f"{item['vendor_device']!r} is no vendor and device id: write it as 10de:2342.")
    address, count, memory = item.get("address"), item.get("count"), item.get("expected_memory")
    if count is not None and count < 1:
        raise PassthroughError(f"count is {count} for {vendor_device}: give at least 1, or leave the item out.")
    if memory is not None and memory <= 0:
        raise PassthroughError(f"expected_memory is {memory}: give the size in bytes, or leave it out.")
    product = item.get("product")
    return GpuRequest(None if address is None else parse_address(str(address)), vendor_device, count, memory,
                      None if product is None else product_named(str(product)))


def select_gpus(requests: Optional[Sequence[GpuRequest]],
                functions: Mapping[str, PciIdentity]) -> list[SelectedGpu]:
    """The GPUs that ``requests`` mean, sorted by address; without requests all NVIDIA display-class functions.

    Raises PassthroughError for an address that does not exist or is no GPU, for a number that does not fit, for a
    GPU that is meant twice, and where there is no GPU at all.
    """
    present = {address: item for address, item in sorted(functions.items()) if item.is_nvidia_gpu}
    if requests is None:
        if not present:
            raise PassthroughError("No NVIDIA GPU was found on this host (no PCI function of vendor 10de and a display "
                                   "class): check the slot, the firmware setup and lspci.")
        return [SelectedGpu(item, product_of(item.vendor, item.device)) for item in present.values()]
    selected: dict[str, SelectedGpu] = {}
    for request in requests:
        for identity in _matches(request, functions, present):
            if identity.address in selected:
                raise PassthroughError(f"The GPU {identity.address} is listed twice in gpus: remove one of the items.")
            product = request.product or product_of(identity.vendor, identity.device)
            selected[identity.address] = SelectedGpu(identity, product, request.expected_memory)
    return [selected[address] for address in sorted(selected)]


def _matches(request: GpuRequest, functions: Mapping[str, PciIdentity],
             present: Mapping[str, PciIdentity]) -> list[PciIdentity]:
    if request.address is not None:
        return [_at_address(request.address, functions, present)]
    found = [item for item in present.values() if item.vendor_device == request.vendor_device]
    if not found or (request.count is not None and len(found) != request.count):
        wanted = "at least 1" if request.count is None else str(request.count)
        where = ", ".join(item.address for item in found) or "none"
        raise PassthroughError(f"gpus wants {wanted} of {request.vendor_device} and this host has {len(found)} "
                               f"({where}): correct the count, or list the addresses.")
    return found


def _at_address(address: str, functions: Mapping[str, PciIdentity],
                present: Mapping[str, PciIdentity]) -> PciIdentity:
    gpus = ", ".join(present) or "none"
    identity = functions.get(address)
    if identity is None:
        raise PassthroughError(f"There is no PCI function {address} on this host (its NVIDIA GPUs: {gpus}): correct "
                               "the address.")
    if address not in present:
        raise PassthroughError(f"{identity.describe()} is not an NVIDIA GPU (those of this host: {gpus}): correct the "
                               "address.")
    return identity
