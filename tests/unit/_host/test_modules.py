# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two modules as Ansible runs them: their argument specs, results and failures."""

from __future__ import annotations

import json

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core import runner
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.severity import SEVERITY
from ansible_collections.nvgrace.passthrough.plugins.modules import host_config, host_info


@pytest.fixture
def call(grace, monkeypatch, capsys):
    """Runs a module's main() on the made-up host and returns its result."""
    monkeypatch.setattr(runner, "Host", lambda: grace.host)
    monkeypatch.setattr(runner, "require_root", lambda: None)
    monkeypatch.setattr(basic, "_PARSED_MODULE_ARGS", {}, raising=False)

    def run(module, **arguments):
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out)

    return run


def test_host_info(call):
    result = call(host_info)
    assert result["changed"] is False
    assert [check["id"] for check in result["host"]["checks"]] == list(SEVERITY)
    assert result["host"]["profiles"] == ["compat"]
    assert result["host"]["kernel"]["machine"] == "aarch64"
    assert {check["status"] for check in result["host"]["checks"]} <= {"ok", "warn", "fail"}


def test_host_info_for_a_manager_of_another_kind(call):
    result = call(host_info, profiles=[], probe_qemu=False)
    checks = {check["id"]: check for check in result["host"]["checks"]}
    assert result["host"]["profiles"] == ["none"]
    assert (checks["libvirt-present"]["status"], checks["kvm-present"]["status"]) == ("ok", "fail")


def test_host_config_with_typed_wishes(call):
    result = call(host_config, kernel_settings={"init_on_alloc": "disabled"}, kernel_arguments=["quiet"])
    assert result["missing_kernel_arguments"] == ["init_on_alloc=0"]
    assert call(host_config, kernel_settings={"iommu": "auto"})["kernel_arguments"] == []


@pytest.mark.parametrize(("blacklist", "ways"), [(["nouveau"], ["initramfs images by dracut"]), ([], [])])
def test_host_config_warns_of_what_was_never_run(call, grace, monkeypatch, blacklist, ways):
    warnings = []
    monkeypatch.setattr(basic.AnsibleModule, "warn", lambda module, text: warnings.append(text))
    grace.write("/boot/initramfs-4.18.0.img")
    grace.program("dracut")
    assert call(host_config, modprobe_blacklist=blacklist)["untested"] == ways
    sentence = f"This host is changed in a way that was never run on a real one of its kind ({', '.join(ways)})"
    assert [text.startswith(sentence) for text in warnings] == [True] * len(ways)


def test_host_config_present_and_absent(call, grace):
    result = call(host_config, modprobe_blacklist=["nouveau"], update_initramfs="never")
    assert result["actions"] == ["write /etc/modprobe.d/nvgrace-passthrough.conf"]
    assert (result["bootloader"], result["reboot_required"], result["restart_services"]) == ("none", False, [])
    assert call(host_config, state="absent", modprobe_blacklist=["nouveau"])["changed"] is True
    assert not grace.has("/etc/modprobe.d/nvgrace-passthrough.conf")


def test_host_config_in_check_mode(call, grace):
    assert call(host_config, modules_load=["vfio_pci"], _ansible_check_mode=True)["changed"] is True
    assert not grace.has("/etc/modules-load.d")


@pytest.mark.parametrize(("arguments", "message"), [
    ({"kernel_arguments": ["a b"]}, "kernel_arguments: 'a b' is not a kernel argument"),
    ({"kernel_arguments": ["iommu.passthrough=0"]}, "The kernel runs without iommu.passthrough=0"),
    ({"hugepages": {"size": "2M"}}, "missing required arguments: count"),
    ({"hugepages": {"size": "512M", "count": 1}}, "This kernel has no hugepages of 512 MiB; it has: 2 MiB."),
    ({"kernel_settings": {"preempt": "often"}}, "value of preempt must be one of"),
    ({"kernel_settings": {"init_on_alloc": "disabled"}, "kernel_arguments": ["init_on_alloc=1"]},
     "kernel_arguments has init_on_alloc=1, and kernel_settings means init_on_alloc=0"),
    ({"kernel_arguments": ["intel_iommu=sm_on,off"]}, "would switch the IOMMU or interrupt remapping off"),
    ({"kernel_arguments": ["nointremap"]}, "would switch the IOMMU or interrupt remapping off"),
    ({"state": "gone"}, "value of state must be one of"),
    ({"no_such_option": 1}, "Unsupported parameters"),
])
def test_host_config_refuses(call, grace, arguments, message):
    before = grace.snapshot()
    result = call(host_config, **arguments)
    assert result["failed"] is True
    assert message in result["msg"]
    assert grace.snapshot() == before
