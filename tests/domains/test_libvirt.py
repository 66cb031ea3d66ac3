# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The golden domains, as Debian's libvirts take or refuse them, and the QEMU command lines that they make of them.

NVGRACE_UPDATE_GOLDEN=1 writes the command lines anew; read the difference before it is committed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from libvirt_root import Answer, LibvirtRoot

from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.invariants import check_xml

ROOT = Path(__file__).resolve().parents[2]
DOMAINS = {path.stem: path.read_text() for path in sorted((ROOT / "tests/unit/_domain/golden").glob("*.xml"))}
GOLDEN = Path(__file__).resolve().parent / "golden"
# What each suite's libvirt says of a domain that it cannot have; the profile that planned it is in the name.
REFUSALS = {
    "bookworm": {"compat": "Extra element features in interleave", "no-accel": "Extra element features in interleave",
                 "native": "Element domain has extra content: iommufd"},
    "trixie": {"no-accel": "Extra element devices in interleave",
               "native": "Element domain has extra content: iommufd"},
    "forky": {},
}


@pytest.fixture(scope="module")
def answers(root: LibvirtRoot) -> dict[str, Answer]:
    return root.ask(DOMAINS)


@pytest.mark.parametrize("name", sorted(DOMAINS))
def test_domain(root: LibvirtRoot, answers: dict[str, Answer], name: str) -> None:
    answer = answers[name]
    expected = next((text for part, text in REFUSALS[root.suite].items() if part in name), "")
    if expected:
        assert expected in answer.refusal
        return
    assert answer.refusal == ""
    check_xml(name, answer.normal)
    golden = GOLDEN / f"{name}.{root.suite}.args"
    text = "".join(f"{line}\n" for line in answer.argv)
    if os.environ.get("NVGRACE_UPDATE_GOLDEN") == "1":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text(), f"the command line of {root.versions()} is another"
