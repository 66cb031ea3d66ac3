# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""State absent: the host is as it was before, file by file, from every state that present can leave."""

from __future__ import annotations

import os
import shutil
from typing import Any, Optional

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.service import ensure
from ansible_collections.nvgrace.passthrough.tests.unit._host.der import certificate
from ansible_collections.nvgrace.passthrough.tests.unit._kmod.fake_host import (
    MACHINE,
    NAME,
    OTHER,
    RUNNING,
    FakeHost,
    Killed,
    parameters,
    source,
)

ROOT = f"/var/lib/dkms/{NAME}"
SOURCE = f"/usr/src/{NAME}-1.0.0"
INSTALLED = f"/lib/modules/{RUNNING}/updates/dkms/{NAME}.ko"
KEYS = ["/var/lib/dkms/mok.key", "/var/lib/dkms/mok.pub"]


def present(host: FakeHost, **overrides: Any) -> dict[str, Any]:
    return ensure(parameters(**overrides), False, host)


def absent(host: FakeHost, check_mode: bool = False, **overrides: Any) -> dict[str, Any]:
    return ensure(parameters(state="absent", _source=None, _source_sha256=None, **overrides), check_mode, host)


def manifest(host: FakeHost) -> dict[str, str]:
    return {path: text for path, text in host.manifest().items() if f"/{path}" not in KEYS}


def test_a_host_that_never_had_it_is_left_alone(host: FakeHost) -> None:
    host.programs -= {"dkms"}
    result = absent(host)
    assert (result["changed"], result["actions"], host.calls, result["kept"]) == (False, [], [], [])
    assert result["kernels"][0]["state"] == "absent"
    assert result["version"] is None


def test_everything_goes_and_new_signing_keys_are_reported(host: FakeHost) -> None:
    pristine = manifest(host)
    present(host)
    predicted = absent(host, check_mode=True)
    result = absent(host)
    assert predicted["actions"] == result["actions"]
    assert result["kept"] == KEYS
    assert manifest(host) == pristine
    assert not absent(host)["changed"]


def test_keys_that_were_there_before_are_not_reported(host: FakeHost) -> None:
    for path in KEYS:
        host.make(path, certificate("Older"))
    present(host)
    assert absent(host)["kept"] == []


def test_all_versions_in_all_kernels_go_and_the_kernels_own_driver_returns(host: FakeHost) -> None:
    host.add_kernel(OTHER)
    host.add_in_tree(RUNNING)
    pristine = manifest(host)
    present(host, kernels=["installed"], prefer_in_tree=False)
    present(host, prefer_in_tree=False, tree=source(version="1.1.0", code="two"))
    result = absent(host)
    assert {entry["kernel"]: entry["state"] for entry in result["kernels"]} == {OTHER: "absent", RUNNING: "in-tree"}
    assert manifest(host) == pristine


@pytest.mark.parametrize("damage", ["source lost", "link lost", "link elsewhere", "not active", "build lost",
                                    "module half-copied", "module damaged", "only added", "tree lost",
                                    "modules.dep old"])
def test_a_damaged_installation_goes_too(host: FakeHost, damage: str) -> None:
    pristine = manifest(host)
    present(host)
    link = f"{ROOT}/kernel-{RUNNING}-{MACHINE}"
    {
        "source lost": lambda: shutil.rmtree(host.path(SOURCE)),
        "link lost": lambda: host.remove(f"{ROOT}/1.0.0/source"),
        "link elsewhere": lambda: (host.remove(f"{ROOT}/1.0.0/source"),
                                   os.symlink("/home/someone", host.path(f"{ROOT}/1.0.0/source"))),
        "not active": lambda: host.remove(link),
        "build lost": lambda: shutil.rmtree(host.path(f"{ROOT}/1.0.0/{RUNNING}")),
        "module half-copied": lambda: (host.remove(link),
                                       host.make(INSTALLED, (host.read_bytes(INSTALLED) or b"")[:20])),
        "module damaged": lambda: host.make(INSTALLED, "ELF\n"),
        "only added": lambda: (shutil.rmtree(host.path(f"{ROOT}/1.0.0/{RUNNING}")), host.remove(link),
                               shutil.rmtree(host.path(f"/lib/modules/{RUNNING}/updates"))),
        "tree lost": lambda: (shutil.rmtree(host.path(ROOT)),
                              shutil.rmtree(host.path(f"/lib/modules/{RUNNING}/updates"))),
        "modules.dep old": lambda: shutil.rmtree(host.path(f"/lib/modules/{RUNNING}/updates")),
    }[damage]()
    absent(host)
    assert manifest(host) == pristine
    assert not absent(host)["changed"]


def test_a_removal_killed_within_any_program_is_finished_by_the_next(host: FakeHost) -> None:
    host.add_in_tree(RUNNING)
    pristine = manifest(host)
    for step in range(1, 5):
        host.kill_at = 0
        present(host, prefer_in_tree=False)
        host.load("X")
        host.calls.clear()
        host.kill_at = step
        try:
            absent(host)
        except Killed:
            host.kill_at = 0
            absent(host)
            assert manifest(host) == pristine
        else:
            break
    assert step > 2
    assert manifest(host) == pristine


def test_an_unused_module_leaves_memory_first(host: FakeHost) -> None:
    present(host)
    host.load("X")
    host.calls.clear()
    result = absent(host)
    assert host.calls[0] == "modprobe -r nvgrace_gpu_vfio_pci"
    assert result["kernels"][0]["loaded_srcversion"] is None


@pytest.mark.parametrize("use,holder", [({"devices": ["0009:01:00.0"]}, "0009:01:00.0"), ({"users": 2}, "2 users")])
def test_a_module_in_use_stays_and_nothing_changes(host: FakeHost, use: dict[str, Any], holder: str) -> None:
    present(host)
    host.load("X", **use)
    before = host.manifest()
    with pytest.raises(PassthroughError) as caught:
        absent(host)
    assert caught.value.message.startswith(f"nvgrace_gpu_vfio_pci is in use ({holder}): give the GPUs back")
    assert host.manifest() == before
    assert holder in absent(host, check_mode=True)["warnings"][0]


def test_the_kernels_own_module_is_not_unloaded(host: FakeHost) -> None:
    host.add_in_tree(RUNNING)
    host.load("KERNEL", devices=["0009:01:00.0"])
    assert not absent(host)["changed"]


def test_removal_needs_dkms(host: FakeHost) -> None:
    present(host)
    host.programs -= {"dkms"}
    with pytest.raises(PassthroughError, match="cannot be removed on this host because dkms is missing") as caught:
        absent(host)
    assert caught.value.details["missing_packages"] == ["dkms"]
    assert "dkms is missing" in absent(host, check_mode=True)["warnings"][0]


def test_a_source_without_record_or_tree_goes_when_its_version_is_named(host: FakeHost) -> None:
    host.make(f"{SOURCE}/dkms.conf", "x")
    assert not absent(host)["changed"]
    assert absent(host, version="1.0.0")["changed"]
    assert not host.exists(SOURCE)


def test_directories_of_a_build_go_where_dkms_leaves_them(host: FakeHost) -> None:
    present(host)
    host.make(f"/lib/modules/{RUNNING}/updates/dkms/keep")
    os.makedirs(host.path(f"/lib/modules/{RUNNING}/extra"))
    absent(host)
    assert not host.exists(f"/lib/modules/{RUNNING}/extra")
    assert host.exists(f"/lib/modules/{RUNNING}/updates/dkms/keep")


@pytest.mark.parametrize("damage", ["build lost", "not active"])
def test_modules_that_dkms_moved_away_are_given_back(host: FakeHost, damage: str) -> None:
    host.add_in_tree(RUNNING)
    pristine = manifest(host)
    present(host, prefer_in_tree=False)
    if damage == "build lost":
        shutil.rmtree(host.path(f"{ROOT}/1.0.0/{RUNNING}"))
    else:
        host.remove(f"{ROOT}/kernel-{RUNNING}-{MACHINE}")
    absent(host)
    assert manifest(host) == pristine


@pytest.mark.parametrize("origin", [None, "/etc/passwd"])
def test_modules_whose_place_is_unknown_are_not_lost(host: FakeHost, origin: Optional[str]) -> None:
    host.add_in_tree(RUNNING)
    present(host, prefer_in_tree=False)
    shutil.rmtree(host.path(f"{ROOT}/1.0.0/{RUNNING}"))
    archived = f"{ROOT}/original_module/{RUNNING}/{MACHINE}/{NAME}.ko"
    host.remove(f"{archived}.origin")
    if origin:
        host.make(f"{archived}.origin", origin)
    with pytest.raises(PassthroughError, match="is a module that DKMS moved away"):
        absent(host)
    assert host.exists(archived)
