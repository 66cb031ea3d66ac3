# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The roles offer what the modules take."""

from __future__ import annotations

from pathlib import Path

import yaml

from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.arguments import CHOICES
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.severity import SEVERITY
from ansible_collections.nvgrace.passthrough.plugins.modules import host_config, host_info

ROLES = Path(__file__).parents[3] / "roles"


def _options(role):
    text = (ROLES / role / "meta" / "argument_specs.yml").read_text()
    return yaml.safe_load(text)["argument_specs"]["main"]["options"]


def test_each_kernel_setting_is_a_variable_of_gpu_host():
    offered = {name: tuple(option["choices"]) for name, option in _options("gpu_host").items()
               if name.removeprefix("gpu_host_") in CHOICES}
    assert offered == {f"gpu_host_{name}": choices for name, choices in CHOICES.items()}
    (task,) = yaml.safe_load((ROLES / "gpu_host" / "tasks" / "configure.yml").read_text())
    assert task["nvgrace.passthrough.host_config"]["kernel_settings"] == {
        name: f"{{{{ gpu_host_{name} }}}}" for name in CHOICES}


def test_each_kernel_setting_is_documented_with_its_values():
    documented = yaml.safe_load(host_config.DOCUMENTATION)["options"]["kernel_settings"]["suboptions"]
    assert {name: tuple(option["choices"]) for name, option in documented.items()} == CHOICES


def test_each_check_is_named_by_the_module():
    text = " ".join(yaml.safe_load(host_info.RETURN)["host"]["contains"]["checks"]["description"])
    assert [name for name in SEVERITY if f"V({name})" not in text] == []
