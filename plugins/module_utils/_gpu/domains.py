# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adapter: which of libvirt's domains name a PCI function, from the files that libvirt keeps of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from .._core.host import Host

_DOMAINS = "/etc/libvirt/qemu"  # virQEMUDriverConfigNew() of libvirt: configDir of the system's driver


def domains_by_function(host: Host) -> dict[str, tuple[str, ...]]:
    """PCI address -> names of the defined domains that pass the function through, whoever has defined them.

    Asking the files and not libvirt works where its daemon is down. A file that is no domain counts as none.
    """
    found: dict[str, list[str]] = {}
    for name in sorted(host.listdir(_DOMAINS)):
        if name.endswith(".xml"):
            for address in _functions_of(host.read_bytes(f"{_DOMAINS}/{name}") or b""):
                found.setdefault(address, []).append(name[:-len(".xml")])
    return {address: tuple(names) for address, names in found.items()}


def _functions_of(document: bytes) -> Iterator[str]:
    try:
        domain = ElementTree.fromstring(document)
    except ElementTree.ParseError:
        return
    for source in domain.iterfind("devices/hostdev[@type='pci']/source/address"):
        parts = [source.get(key, "0x0") for key in ("domain", "bus", "slot", "function")]
        if all(re.fullmatch(r"(0x)?[0-9a-fA-F]{1,8}", part) for part in parts):
            yield "{:04x}:{:02x}:{:02x}.{:x}".format(*(int(part, 16) for part in parts))
