# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What domain_xml does on a host: state before -> description -> commands, result, record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.journal import STATE_DIR
from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.converge import (
    Wanted,
    make_absent,
    make_present,
    recorded_names,
)
from ansible_collections.nvgrace.passthrough.tests.unit._domain.fake_libvirt import DOMAIN, FakeHost

FIND = "dominfo vm; dumpxml --inactive vm"
RECORD = f"{STATE_DIR}/domain-vm.json"
FILE = "/etc/vm.xml"


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


def wanted(memory: int = 1024, **changes: Any) -> Wanted:
    values: dict[str, Any] = {"name": "vm", "xml": DOMAIN.format(name="vm", memory=memory), "define": True, "dest": "",
                              "autostart": None, **changes}
    return Wanted(**values)


def defined(host: FakeHost, want: Wanted) -> None:
    make_present(host, want, check=False)
    host.libvirt.log.clear()


def tree(host: FakeHost) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(host.root).rglob("*") if path.is_file()}


def test_first_definition(host: FakeHost) -> None:
    result = make_present(host, wanted(), check=False)
    assert result["changed"]
    assert result["actions"] == ["define the domain vm with validation"]
    assert "machine='virt-10.0'" in result["defined_xml"]
    assert result["qemu_argv"] == ["LC_ALL=C", "/usr/bin/qemu-system-aarch64", "-name", "guest=a b"]
    assert not result["restart_required"]
    assert host.libvirt.log[0] == FIND
    assert host.libvirt.log[1].startswith("define --validate /run/nvgrace-")
    assert host.exists(RECORD)
    assert host.listdir("/run") == []


def test_converged_costs_one_call(host: FakeHost) -> None:
    defined(host, wanted())
    result = make_present(host, wanted(), check=False)
    assert (result["changed"], result["actions"], result["diff"]) == (False, [], {"before": "", "after": ""})
    assert host.libvirt.log == [FIND]
    assert "qemu_argv" not in result


@pytest.mark.parametrize("before", [None, 1024, 2048])
def test_check_mode_foretells_the_real_run_and_touches_nothing(host: FakeHost, before: int | None) -> None:
    if before:
        defined(host, wanted(before))
    want = wanted(2048, autostart=True, dest=FILE)
    files, domains = tree(host), dict(host.libvirt.domains)
    foretold = make_present(host, want, check=True)
    assert (tree(host), host.libvirt.domains, host.libvirt.autostart) == (files, domains, set())
    real = make_present(host, want, check=False)
    for key in ("changed", "actions", "defined_xml", "restart_required", "dest"):
        assert foretold[key] == real[key], key


def test_a_changed_description(host: FakeHost) -> None:
    defined(host, wanted())
    result = make_present(host, wanted(2048), check=False)
    assert result["changed"]
    assert ">1024<" in result["diff"]["before"]
    assert ">2048<" in result["diff"]["after"]
    assert host.libvirt.log[1].startswith("define --validate") and "dumpxml" in host.libvirt.log[1]
    assert ">2048<" in host.libvirt.domains["vm"]


def test_an_edit_of_others_is_noticed(host: FakeHost) -> None:
    defined(host, wanted())
    host.libvirt.domains["vm"] = host.libvirt.domains["vm"].replace("1024", "4096")
    assert make_present(host, wanted(), check=True)["changed"]
    assert make_present(host, wanted(), check=False)["changed"]
    assert ">1024<" in host.libvirt.domains["vm"]


def test_an_equal_domain_of_others_is_adopted(host: FakeHost) -> None:
    defined(host, wanted())
    host.remove(RECORD)
    host.libvirt.domains["vm"] = host.libvirt.domains["vm"].replace("><memory", ">\n  <memory")
    result = make_present(host, wanted(), check=False)
    assert not result["changed"]
    assert host.exists(RECORD)
    host.libvirt.log.clear()
    make_present(host, wanted(), check=False)
    assert host.libvirt.log == [FIND]


@pytest.mark.parametrize(("is_on", "want", "actions"), [
    (False, True, ["run virsh -q -c qemu:///system autostart vm"]),
    (True, False, ["run virsh -q -c qemu:///system autostart --disable vm"]),
    (True, None, []), (True, True, []), (False, False, [])])
def test_autostart(host: FakeHost, is_on: bool, want: bool | None, actions: list[str]) -> None:
    defined(host, wanted(autostart=is_on))
    result = make_present(host, wanted(autostart=want), check=False)
    assert result["actions"] == actions
    assert ("vm" in host.libvirt.autostart) == (is_on if want is None else want)


def test_a_file_beside_the_definition(host: FakeHost) -> None:
    host.write_atomic(FILE, b"original", 0o640)
    result = make_present(host, wanted(dest=FILE), check=False)
    assert result["actions"] == [f"write {FILE}", "define the domain vm with validation"]
    assert host.read_bytes(FILE) == wanted().xml.encode()
    assert not make_present(host, wanted(dest=FILE), check=False)["changed"]
    result = make_absent(host, ["vm"], check=False)
    assert result["changed"]
    assert host.file_state(FILE).content == b"original"
    assert host.file_state(FILE).mode == 0o640
    assert host.listdir(STATE_DIR) == []


def test_only_a_file(host: FakeHost) -> None:
    host.remove("/usr/bin/virsh")
    result = make_present(host, wanted(define=False, dest=FILE), check=False)
    assert result["changed"] and host.libvirt.log == []
    assert result["diff"]["after"] == wanted().xml
    assert not make_present(host, wanted(define=False, dest=FILE), check=False)["changed"]
    assert make_absent(host, recorded_names(host), check=False)["changed"]
    assert not host.exists(FILE)


LIVE = DOMAIN.replace("<domain type='kvm'>", "<domain type='kvm' id='3' machine='virt-10.0'>")


@pytest.mark.parametrize(("live_memory", "restart"), [(1024, False), (512, True)])
def test_restart_required(host: FakeHost, live_memory: int, restart: bool) -> None:
    defined(host, wanted())
    host.libvirt.live["vm"] = LIVE.format(name="vm", memory=live_memory)
    assert make_present(host, wanted(), check=False)["restart_required"] is restart


def test_a_running_domain_that_is_redefined_needs_a_restart(host: FakeHost) -> None:
    defined(host, wanted())
    host.libvirt.live["vm"] = LIVE.format(name="vm", memory=1024)
    assert make_present(host, wanted(2048), check=True)["restart_required"]
    assert make_present(host, wanted(2048), check=False)["restart_required"]


@pytest.mark.parametrize("check", [True, False])
def test_libvirt_refuses(host: FakeHost, check: bool) -> None:
    bad = wanted(xml="<domain type='kvm'><name>vm</name><foo/></domain>")
    with pytest.raises(PassthroughError) as caught:
        make_present(host, bad, check)
    assert caught.value.message == "libvirt refuses the domain vm: XML document failed to validate Extra element."
    assert host.libvirt.domains == {} and not host.exists(RECORD) and host.listdir("/run") == []


@pytest.mark.parametrize(("prepare", "message"), [
    (lambda host: host.remove("/usr/bin/virsh"), "libvirt is missing on this host .*install libvirt-clients"),
    (lambda host: setattr(host.libvirt, "down", "Failed to connect socket"),
     "libvirt does not answer on qemu:///system: Failed to connect socket; start libvirtd"),
])
def test_no_libvirt(host: FakeHost, prepare: Any, message: str) -> None:
    prepare(host)
    with pytest.raises(PassthroughError, match=message):
        make_present(host, wanted(), check=False)


def test_no_embedded_driver(host: FakeHost) -> None:
    host.libvirt.embedded_down = True
    with pytest.raises(PassthroughError, match="install libvirt-daemon-driver-qemu"):
        make_present(host, wanted(), check=True)


def test_an_argv_that_libvirt_cannot_tell_is_a_warning(host: FakeHost) -> None:
    host.libvirt.argv_error = "hugetlbfs filesystem is not mounted"
    result = make_present(host, wanted(), check=False)
    assert result["changed"] and result["qemu_argv"] is None
    assert "hugetlbfs filesystem is not mounted" in result["warnings"][0]


def test_nothing_to_do(host: FakeHost) -> None:
    with pytest.raises(PassthroughError, match="There is nothing to do"):
        make_present(host, wanted(define=False), check=False)


def test_absent(host: FakeHost) -> None:
    defined(host, wanted())
    foretold = make_absent(host, ["vm"], check=True)
    assert "vm" in host.libvirt.domains
    real = make_absent(host, ["vm"], check=False)
    assert foretold["actions"] == real["actions"] == [
        "run virsh -q -c qemu:///system undefine vm --nvram --managed-save --snapshots-metadata --checkpoints-metadata",
        "forget the domain vm"]
    assert host.libvirt.domains == {} and host.listdir(STATE_DIR) == []
    assert not make_absent(host, ["vm"], check=False)["changed"]


def test_absent_without_names_takes_the_recorded_ones(host: FakeHost) -> None:
    defined(host, wanted())
    host.libvirt.domains["foreign"] = DOMAIN.format(name="foreign", memory=1)
    assert recorded_names(host) == ["vm"]
    make_absent(host, recorded_names(host), check=False)
    assert list(host.libvirt.domains) == ["foreign"]


def test_absent_refuses_a_running_domain_before_anything(host: FakeHost) -> None:
    for name in ("a", "b"):
        make_present(host, wanted(name=name, xml=DOMAIN.format(name=name, memory=1)), check=False)
    host.libvirt.live["b"] = "<domain/>"
    with pytest.raises(PassthroughError, match="The domain b is running"):
        make_absent(host, ["a", "b"], check=False)
    assert sorted(host.libvirt.domains) == ["a", "b"]


def test_absent_needs_no_libvirt(host: FakeHost) -> None:
    host.remove("/usr/bin/virsh")
    assert not make_absent(host, ["vm"], check=False)["changed"]


def test_a_definition_that_somebody_else_removed_is_forgotten(host: FakeHost) -> None:
    defined(host, wanted())
    host.libvirt.domains.clear()
    assert make_absent(host, ["vm"], check=False)["actions"] == ["forget the domain vm"]
