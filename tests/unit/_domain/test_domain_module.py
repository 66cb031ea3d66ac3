# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module file: from parameters to the right call, and its documentation against its argument spec."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.spec import ARGUMENT_SPEC
from ansible_collections.nvgrace.passthrough.plugins.modules import domain_xml
from ansible_collections.nvgrace.passthrough.tests.unit._domain.fake_libvirt import DOMAIN, FakeHost


class FakeModule(SimpleNamespace):
    """What work() needs of AnsibleModule."""

    def __init__(self, **params: Any) -> None:
        super().__init__(check_mode=False, said=[], params={
            "state": "present", "vm": {"name": "vm"}, "define": True, "dest": None, "autostart": None, **params})

    def warn(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


def test_present_then_absent(host: FakeHost) -> None:
    module = FakeModule(_xml=DOMAIN.format(name="vm", memory=1))
    assert domain_xml.work(module, host)["changed"]  # type: ignore[arg-type]
    assert "_xml" not in module.params
    assert domain_xml.work(FakeModule(state="absent"), host)["changed"]  # type: ignore[arg-type]
    assert host.libvirt.domains == {}


def test_absent_without_a_vm_takes_all_recorded_ones(host: FakeHost) -> None:
    domain_xml.work(FakeModule(_xml=DOMAIN.format(name="vm", memory=1)), host)  # type: ignore[arg-type]
    assert domain_xml.work(FakeModule(state="absent", vm=None), host)["changed"]  # type: ignore[arg-type]
    assert host.libvirt.domains == {}


def test_warnings_are_said(host: FakeHost) -> None:
    host.libvirt.argv_error = "no tap device"
    module = FakeModule(_xml=DOMAIN.format(name="vm", memory=1))
    result = domain_xml.work(module, host)  # type: ignore[arg-type]
    assert "warnings" not in result
    assert "no tap device" in module.said[0]


def same(documented: dict[str, Any], spec: dict[str, Any]) -> None:
    assert set(documented) == set(spec)
    for name, option in spec.items():
        for key in ("type", "default", "choices", "elements", "required"):
            assert (documented[name].get(key) or None) == (option.get(key) or None), f"{name}.{key}"
        same(documented[name].get("suboptions") or {}, option.get("options") or {})


def test_documentation_and_argument_spec_agree() -> None:
    # survey is in a fragment that other modules have, too
    same(yaml.safe_load(domain_xml.DOCUMENTATION)["options"],
         {name: option for name, option in ARGUMENT_SPEC.items() if name != "survey"})
