# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Comparing domains: two texts that libvirt wrote, and a running domain with its definition."""

from __future__ import annotations

import hashlib
from xml.etree import ElementTree

# What libvirt adds while a domain runs, below <devices> unless said otherwise
_RUNTIME_ELEMENTS = ("seclabel", "resource")
_RUNTIME_ATTRIBUTES = (
    (".", "id"),
    ("devices/console", "tty"),
    ("devices/interface/target", "dev"),
    ("devices/channel/target", "state"),
    ("devices/channel/source", "path"),
    ("devices/channel/source", "mode"),
    ("devices/interface/source", "portid"),
    ("devices/interface/source", "bridge"),
)
_USER_ALIAS = "ua-"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def canonical(xml: str) -> str:
    """One text for all ways to write the same document."""
    return ElementTree.canonicalize(xml, strip_text=True)


def same_domain(first: str, second: str) -> bool:
    return canonical(first) == canonical(second)


def runs_as_defined(live: str, inactive: str) -> bool:
    """Whether a running domain needs no restart to become what is defined."""
    return _without_runtime(live) == _without_runtime(inactive)


def _without_runtime(xml: str) -> str:
    root = ElementTree.fromstring(xml)
    for path, name in _RUNTIME_ATTRIBUTES:
        for element in root.iterfind(path):
            element.attrib.pop(name, None)
    for tag in _RUNTIME_ELEMENTS:
        for element in root.findall(tag):
            root.remove(element)
    for parent in list(root.iter()):
        for child in list(parent):
            if _is_runtime(child):
                parent.remove(child)
    return ElementTree.canonicalize(ElementTree.tostring(root, encoding="unicode"), strip_text=True)


def _is_runtime(element: ElementTree.Element) -> bool:
    """Aliases that libvirt made up, pseudo terminals, and elements that lost their last attribute above."""
    if element.tag == "alias":
        return not element.get("name", "").startswith(_USER_ALIAS)
    if element.tag == "source" and element.get("path", "").startswith("/dev/pts/"):
        return True
    return element.tag in ("target", "source") and not element.attrib and not len(element) and not element.text
