# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host builds and signs, another is handed the module: no DKMS, no compiler, no key there."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.host import CommandResult
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.export import read_plain
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.prebuilt import (
    describe_module,
    from_json,
    pack_modules,
    unpack_modules,
)
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.service import ensure
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.signing import SETTINGS
from ansible_collections.nvgrace.passthrough.tests.unit._host.der import certificate, signature_list
from ansible_collections.nvgrace.passthrough.tests.unit._kmod import elf
from ansible_collections.nvgrace.passthrough.tests.unit._kmod.fake_host import (
    ALIAS,
    FLAGS,
    MACHINE,
    NAME,
    OTHER,
    RUNNING,
    FakeHost,
    Killed,
    debian_host,
    parameters,
    source,
)
from ansible_collections.nvgrace.passthrough.tests.unit._kmod.test_keypair import pkcs8, rsa_key
from ansible_collections.nvgrace.passthrough.tests.unit._kmod.test_signing import (
    CERTIFICATE,
    KEY,
    MOK,
    NUMBER,
    RSA_OID,
    SITE,
    secure,
)

DIRECTORY = "/srv/modules"
HANDED = f"/lib/modules/{RUNNING}/updates/nvgrace-passthrough/{NAME}.ko"


class Controller:
    """What the action plugin does between both hosts."""

    def __init__(self, builder: FakeHost, target: FakeHost) -> None:
        self.builder, self.target = builder, target
        self.manifests: dict[tuple[str, str], dict[str, Any]] = {}
        self.contents: dict[str, bytes] = {}
        self.calls = 0

    def export(self, *releases: str, check_mode: bool = False, **overrides: Any) -> dict[str, Any]:
        have = {"/".join(key): manifest["sha256"] for key, manifest in self.manifests.items()}
        result = ensure(parameters(state="exported", kernels=list(releases or (RUNNING,)), dest=DIRECTORY, _have=have,
                                   signing_key=KEY, signing_certificate=CERTIFICATE, **overrides), check_mode,
                        self.builder)
        self.contents.update(unpack_modules(result.pop("_modules")))
        self.manifests.update({(entry["kernel"], entry["machine"]): entry for entry in result["exports"]})
        return result

    def hand_out(self, check_mode: bool = False, **overrides: Any) -> dict[str, Any]:
        sent = parameters(prebuilt=DIRECTORY, _prebuilt=list(self.manifests.values()), _aliases=[ALIAS],
                          **{"_source": None, **overrides})
        self.calls += 1
        result = ensure(sent, check_mode, self.target)
        if "_wanted" in result:
            assert not result["changed"]
            self.calls += 1
            modules = pack_modules({want["kernel"]: self.contents[want["kernel"]] for want in result["_wanted"]})
            result = ensure({**sent, "_modules": modules}, check_mode, self.target)
        return result


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    """A builder with the headers of the target's kernel and the pair of the site, and a bare target."""
    builder = debian_host(tmp_path / "builder")
    builder.make("/proc/sys/kernel/osrelease", "6.1.0-builder\n")
    builder.add_kernel("6.1.0-builder")
    shutil.rmtree(builder.path(f"/lib/modules/{RUNNING}"))
    builder.add_headers(RUNNING)
    builder.make(KEY, pkcs8(RSA_OID, rsa_key(NUMBER)), 0o600)
    builder.make(CERTIFICATE, SITE)
    target = debian_host(tmp_path / "target")
    target.programs = {"modinfo", "depmod", "modprobe"}
    shutil.rmtree(target.path(f"/lib/modules/{RUNNING}/build"))
    shutil.rmtree(target.path("/var/lib/dkms"))
    return Controller(builder, target)


def absent(host: FakeHost) -> dict[str, Any]:
    return ensure(parameters(state="absent"), False, host)


def state(host: FakeHost) -> dict[str, str]:
    return {path: text for path, text in host.manifest().items() if "mok." not in path}


def test_a_module_is_built_once_and_handed_out(controller: Controller) -> None:
    exported = controller.export()
    assert exported["changed"]
    assert controller.builder.dkms_calls() == ["add", "build"]
    assert exported["kernels"][0]["state"] == "built"
    assert (exported["kernels"][0]["signer"], exported["provides"], exported["reload_required"]) == ("Site", [], False)
    entry = exported["exports"][0]
    assert (entry["kernel"], entry["machine"], entry["signer"], entry["version"]) == (RUNNING, MACHINE, "Site", "1.0.0")

    predicted = controller.hand_out(check_mode=True)
    result = controller.hand_out()
    assert predicted["actions"] == result["actions"]
    assert predicted["diff"] == result["diff"]
    assert predicted["provides"] == result["provides"]
    assert controller.target.calls == [f"depmod -a {RUNNING}"]
    kernel = result["kernels"][0]
    assert (kernel["state"], kernel["path"], kernel["signer"]) == ("installed", HANDED, "Site")
    assert kernel["srcversion"] == entry["srcversion"]
    assert (result["signing"]["key_pair"], result["version"]) == ("builder", "1.0.0")
    assert not any("key" in path for path in state(controller.target))


def test_converged_costs_one_call_on_each_host_and_ships_nothing(controller: Controller) -> None:
    controller.export()
    controller.hand_out()
    controller.target.calls.clear()
    controller.builder.calls.clear()
    controller.contents.clear()
    controller.calls = 0
    assert not controller.hand_out()["changed"]
    assert not controller.export()["changed"]
    assert (controller.calls, controller.target.calls, controller.builder.calls, controller.contents) == (1, [], [], {})


def test_absent_gives_the_target_back(controller: Controller) -> None:
    controller.target.add_in_tree(RUNNING)
    before = state(controller.target)
    controller.export()
    controller.hand_out(prefer_in_tree=False)
    result = absent(controller.target)
    kernels = json.loads(result["diff"]["before"])["kernels"]
    assert kernels == {RUNNING: {"state": "installed", "modules_dep": "current"}}
    assert result["kernels"][0]["state"] == "in-tree"
    assert state(controller.target) == before
    assert not absent(controller.target)["changed"]


def test_absent_unloads_and_refuses_as_for_a_build(controller: Controller) -> None:
    controller.export()
    controller.target.load(controller.hand_out()["kernels"][0]["srcversion"], devices=["0009:01:00.0"])
    assert not controller.hand_out()["reload_required"]
    with pytest.raises(PassthroughError, match="is in use"):
        absent(controller.target)


def test_the_builder_gets_everything_back_too(controller: Controller) -> None:
    before = state(controller.builder)
    controller.export()
    absent(controller.builder)
    assert state(controller.builder) == before


def test_the_builders_own_kernel_stays_installed(controller: Controller) -> None:
    own = "6.1.0-builder"
    pair = {"signing_key": KEY, "signing_certificate": CERTIFICATE}
    ensure(parameters(**pair), False, controller.builder)
    result = controller.export(RUNNING, own)
    assert {entry["kernel"]: entry["state"] for entry in result["kernels"]} == {RUNNING: "built", own: "installed"}
    assert not ensure(parameters(**pair), False, controller.builder)["changed"]
    assert {entry["kernel"] for entry in result["exports"]} == {RUNNING, own}
    changed = controller.export(RUNNING, tree=source(code="two"))
    assert changed["changed"]
    assert not ensure(parameters(tree=source(code="two"), **pair), False, controller.builder)["changed"]


def test_a_new_source_is_built_and_handed_out_again(controller: Controller) -> None:
    controller.export()
    old = controller.hand_out()["kernels"][0]["srcversion"]
    new = source(code="two")
    with pytest.raises(PassthroughError, match="what is there was built from another source"):
        controller.hand_out(tree=new)
    controller.export(tree=new)
    result = controller.hand_out(tree=new)
    assert result["changed"] and result["kernels"][0]["srcversion"] != old
    absent(controller.target)
    assert not controller.target.exists("/var/lib/nvgrace-passthrough")


def test_another_certificate_can_be_demanded(controller: Controller) -> None:
    controller.export()
    with pytest.raises(PassthroughError, match="not signed with the certificate of 'certificate_sha256'"):
        controller.hand_out(certificate_sha256="0" * 64)
    wanted = controller.manifests[RUNNING, MACHINE]
    found = from_json(wanted, "test").certificate_sha256
    assert controller.hand_out(certificate_sha256=found)["changed"]


def test_a_new_certificate_replaces_the_old_one(controller: Controller) -> None:
    controller.export()
    controller.hand_out()
    other = certificate("Next", b"\x44", public=(b"x"))
    content = elf.signed(elf.module(RUNNING, alias=ALIAS, flags=FLAGS), "Next", b"\x44")
    entry = describe_module(content, RUNNING, "1.0.0", source().sha256, other)
    controller.manifests[RUNNING, MACHINE] = entry.as_json()
    controller.contents[RUNNING] = content
    assert controller.hand_out()["kernels"][0]["signer"] == "Next"
    names = [name for name in controller.target.listdir("/var/lib/nvgrace-passthrough") if name.endswith(".der")]
    assert names == [f"signing-{entry.certificate_sha256}.der"]
    absent(controller.target)
    assert not controller.target.exists("/var/lib/nvgrace-passthrough")


def test_a_missing_kernel_is_one_sentence(controller: Controller) -> None:
    controller.export()
    controller.target.add_kernel(OTHER)
    with pytest.raises(PassthroughError) as caught:
        controller.hand_out(kernels=["installed"])
    assert caught.value.message == (
        f"{DIRECTORY} on the controller has no {NAME} for kernel {OTHER} on {MACHINE}: run dkms_module with "
        f"state=exported, dest={DIRECTORY} and kernels={OTHER} on a builder of that architecture, then again.")
    assert caught.value.details["missing_prebuilt"] == [{"kernel": OTHER, "machine": MACHINE}]
    assert not controller.target.exists(HANDED)


def test_a_check_run_goes_on_where_the_real_one_would_build_first(controller: Controller) -> None:
    before = state(controller.target)
    assert controller.export(check_mode=True)["exports"] == []
    result = controller.hand_out(check_mode=True)
    assert result["changed"] and "has no" in result["warnings"][0]
    assert result["kernels"][0]["state"] == "installed"
    assert result["provides"][0]["aliases"] == [ALIAS]
    assert result["actions"] == [f"write {HANDED}",
                                 f"run depmod -a {RUNNING} (modules.dep does not match the installed module)"]
    assert state(controller.target) == before


def test_after_a_kernel_upgrade_the_new_kernel_is_named(controller: Controller) -> None:
    controller.export()
    controller.hand_out()
    controller.target.add_kernel(OTHER)
    controller.target.add_kernel("7.9-own")
    controller.target.add_in_tree("7.9-own")
    controller.target.make("/lib/modules/7.9-builtin/kernel/x")
    controller.target.make("/lib/modules/7.9-builtin/modules.builtin", f"kernel/drivers/{NAME}.ko\n")
    result = controller.hand_out()
    assert not result["changed"]
    assert [(entry["kernel"], entry["state"]) for entry in result["kernels"]] == [
        (RUNNING, "installed"), (OTHER, "absent")]
    (warning,) = result["warnings"]
    assert warning.startswith(f"{OTHER}: installed here and without the module")


def test_a_host_that_needs_no_module_is_handed_none(controller: Controller) -> None:
    """Neither where there is one for its kernel, nor where there is none, which is no failure there."""
    for _round in range(2):
        result = controller.hand_out(required_ids=[], only_if_required=True)
        assert (result["changed"], [kernel["state"] for kernel in result["kernels"]]) == (False, ["absent"])
        assert (result["provides"], result["signing"]["key_pair"], controller.target.calls) == ([], None, [])
        controller.export(required_ids=[], only_if_required=True)
        assert controller.manifests


def test_a_kernels_own_driver_is_preferred(controller: Controller) -> None:
    controller.export()
    controller.hand_out()
    controller.target.add_in_tree(RUNNING)
    result = controller.hand_out()
    assert (result["changed"], result["kernels"][0]["state"], result["signing"]["key_pair"]) == (True, "in-tree", None)
    assert not controller.target.exists(HANDED)
    assert not controller.hand_out()["changed"]
    absent(controller.target)
    assert not controller.target.exists("/var/lib/nvgrace-passthrough")


def with_dkms(controller: Controller) -> FakeHost:
    target = controller.target
    target.programs |= {"dkms", "make", "gcc"}
    target.add_headers(RUNNING)
    target.make("/var/lib/dkms/dkms_dbversion", "2.0.0\n")
    target.make(KEY, controller.builder.read_bytes(KEY) or b"", 0o600)
    target.make(CERTIFICATE, SITE)
    return target


@pytest.mark.parametrize("own_pair", [True, False])
def test_from_dkms_to_handed_out_and_back(controller: Controller, own_pair: bool) -> None:
    target = with_dkms(controller)
    target.add_in_tree(RUNNING)
    pair = {"signing_key": KEY, "signing_certificate": CERTIFICATE} if own_pair else {}
    before = state(target)
    ensure(parameters(prefer_in_tree=False, **pair), False, target)
    built = state(target)
    controller.export()
    predicted = controller.hand_out(check_mode=True, prefer_in_tree=False)
    result = controller.hand_out(prefer_in_tree=False)
    assert predicted["actions"] == result["actions"]
    assert result["kernels"][0]["path"] == HANDED
    assert not any(path.startswith(("usr/src/nv", f"var/lib/dkms/{NAME}")) for path in state(target))
    assert not target.exists(SETTINGS)
    assert not controller.hand_out(prefer_in_tree=False)["changed"]
    back = ensure(parameters(prefer_in_tree=False, **pair), False, target)
    assert (back["changed"], target.exists(HANDED)) == (True, False)
    after = state(target)
    for found in (built, after):
        del found["var/lib/nvgrace-passthrough/kmod.json"]
    assert {path: text for path, text in after.items() if not path.endswith(".der") or "keys" in path} == built
    assert not ensure(parameters(prefer_in_tree=False, **pair), False, target)["changed"]
    absent(target)
    assert state(target) == before


@pytest.mark.parametrize("direction", ["from dkms", "to dkms"])
def test_a_move_that_is_killed_is_finished_by_the_next_run(controller: Controller, direction: str) -> None:
    target = with_dkms(controller)
    before = state(target)
    controller.export()
    moves = {"from dkms": (lambda: ensure(parameters(), False, target), controller.hand_out),
             "to dkms": (controller.hand_out, lambda: ensure(parameters(), False, target))}[direction]
    for step in range(1, 9):
        moves[0]()
        target.calls.clear()
        target.kill_at = step
        try:
            moves[1]()
        except Killed:
            target.kill_at = 0
            moves[1]()
            assert not moves[1]()["changed"]
            absent(target)
            assert state(target) == before
        else:
            break
    assert step > 2


def test_a_move_needs_dkms_while_it_has_builds(controller: Controller) -> None:
    target = with_dkms(controller)
    ensure(parameters(), False, target)
    controller.export()
    target.programs -= {"dkms"}
    assert "dkms is missing" in controller.hand_out(check_mode=True)["warnings"][-1]
    with pytest.raises(PassthroughError, match="cannot be removed on this host because dkms is missing"):
        controller.hand_out()


@pytest.mark.parametrize("damage", ["changed", "deleted", "old modules.dep", "state lost", "certificate lost"])
def test_damage_on_the_target_is_repaired(controller: Controller, damage: str) -> None:
    target = controller.target
    before = state(target)
    controller.export()
    controller.hand_out()
    good = state(target)
    {
        "changed": lambda: target.make(HANDED, elf.module(RUNNING, "EVIL")),
        "deleted": lambda: target.remove(HANDED),
        "old modules.dep": lambda: target.make(f"/lib/modules/{RUNNING}/modules.dep", "\n"),
        "state lost": lambda: (shutil.rmtree(target.path("/var/lib/nvgrace-passthrough")),
                               target.make(HANDED, elf.module(RUNNING, "EVIL"))),
        "certificate lost": lambda: [target.remove(f"/var/lib/nvgrace-passthrough/{name}")
                                     for name in target.listdir("/var/lib/nvgrace-passthrough")
                                     if name.endswith(".der")],
    }[damage]()
    assert controller.hand_out()["changed"]
    assert {path: text for path, text in state(target).items() if "kmod.json" not in path} == {
        path: text for path, text in good.items() if "kmod.json" not in path}
    assert not controller.hand_out()["changed"]
    absent(target)
    if damage != "state lost":  # the directory that we made is not known to be ours any more
        assert state(target) == before
    assert not target.exists(HANDED)


def test_a_module_of_ours_without_journal_goes_on_removal(controller: Controller) -> None:
    controller.export()
    controller.hand_out()
    shutil.rmtree(controller.target.path("/var/lib/nvgrace-passthrough"))
    absent(controller.target)
    assert not controller.target.exists(HANDED)


def test_a_kernel_that_is_gone_is_cleaned_up(controller: Controller) -> None:
    controller.target.add_kernel(OTHER)
    controller.builder.add_headers(OTHER)
    controller.export(RUNNING, OTHER)
    controller.hand_out(kernels=["installed"])
    shutil.rmtree(controller.target.path(f"/lib/modules/{OTHER}/kernel"))
    absent(controller.target)
    assert controller.target.listdir(f"/lib/modules/{OTHER}") == ["build", "modules.dep"]


GOOD = elf.signed(elf.module(RUNNING, flags=FLAGS), "Site", b"\x11")


@pytest.mark.parametrize(("content", "sentence"), [
    (None, "arrived with SHA-256"),
    (b"#!/bin/sh\n", "cannot be used: it is no kernel module"),
    (elf.module(RUNNING, machine=elf.X86_64, flags=FLAGS), "is for the machine 'x86_64' where 'aarch64' is needed"),
    (elf.module(RUNNING, module_name="other", flags=FLAGS), "is named 'other' where 'nvgrace_gpu_vfio_pci' is needed"),
    (elf.module(OTHER, flags=FLAGS), f"is for the kernel '{OTHER}' where '{RUNNING}' is needed"),
    (elf.module(RUNNING, flags=" SMP mod_unload aarch64"), "has the vermagic"),
    (elf.module(RUNNING, flags=FLAGS), "is not signed, and this kernel loads signed modules only"),
    (elf.signed(elf.module(RUNNING, flags=FLAGS), "Site", b"\x99"), "is signed by 'Site' and not by the certificate"),
])
def test_nothing_is_written_of_a_module_that_does_not_fit(controller: Controller, content: Optional[bytes],
                                                          sentence: str) -> None:
    secure(controller.target)
    entry = describe_module(GOOD, RUNNING, "1.0.0", source().sha256, SITE)
    if content is not None:
        entry = replace(entry, sha256=hashlib.sha256(content).hexdigest())
    controller.manifests[RUNNING, MACHINE] = entry.as_json()
    controller.contents[RUNNING] = content if content is not None else GOOD + b"x"
    before = controller.target.manifest()
    with pytest.raises(PassthroughError) as caught:
        controller.hand_out()
    assert sentence in caught.value.message
    assert controller.target.manifest() == before


def test_a_kernel_without_modules_of_its_own_is_compared_by_release(controller: Controller) -> None:
    controller.target.remove(f"/lib/modules/{RUNNING}/kernel/drivers/vfio/pci/vfio-pci.ko")
    controller.export()
    assert controller.hand_out()["changed"]


@pytest.mark.parametrize(("enrolled", "steps", "warnings"), [(True, 0, 0), (False, 4, 1)])
def test_the_target_tells_whether_it_trusts_the_builder(controller: Controller, enrolled: bool, steps: int,
                                                        warnings: int) -> None:
    secure(controller.target)
    if enrolled:
        controller.target.make(MOK, b"\6\0\0\0" + signature_list(SITE))
    controller.export()
    for result in (controller.hand_out(), controller.hand_out()):
        assert len(result["signing"]["enrolment_steps"]) == steps
        assert len(result["warnings"]) == warnings
    path = result["signing"]["certificate"]
    assert controller.target.read_bytes(path) == SITE
    assert not steps or f"mokutil --import {path}" in result["signing"]["enrolment_steps"][0]


def test_headers_are_enough_and_are_named_where_they_lack(controller: Controller) -> None:
    with pytest.raises(PassthroughError, match=f"headers of kernel {OTHER.split('+')[0]}") as caught:
        controller.export(OTHER)
    assert caught.value.details["missing_packages"] == [f"linux-headers-{OTHER}"]
    with pytest.raises(PassthroughError, match="Kernel 5.0-none is not installed on this host"):
        controller.hand_out(kernels=["5.0-none"])


def test_an_interrupted_build_for_another_host_is_finished(controller: Controller) -> None:
    controller.builder.kill_at = 2
    with pytest.raises(Killed):
        controller.export()
    controller.builder.kill_at = 0
    assert controller.export()["exports"]
    assert not controller.export()["changed"]


def test_depmod_that_does_nothing_is_told(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    controller.export()
    monkeypatch.setattr(controller.target, "_depmod", lambda release: None)
    with pytest.raises(PassthroughError, match="would not load the nvgrace-gpu-vfio-pci that was handed out"):
        controller.hand_out()


@pytest.mark.parametrize("suffix", ["", ".xz", ".gz", ".zst"])
def test_a_compressed_build_travels_plain(host: FakeHost, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    os.makedirs(host.path("/run"))

    def zstd(argv: Any, **_options: Any) -> CommandResult:
        assert argv[:4] == ("zstd", "-d", "-q", "-o")
        Path(argv[4]).write_bytes(Path(argv[5]).read_bytes()[4:])
        return CommandResult(tuple(argv), 0, "", "")

    monkeypatch.setattr(host, "run", zstd)
    packed = {"": bytes, ".xz": lzma.compress, ".gz": gzip.compress, ".zst": lambda data: b"zstd" + data}[suffix](GOOD)
    host.make(f"/x.ko{suffix}", packed)
    assert read_plain(host, f"/x.ko{suffix}") == GOOD
    assert host.listdir("/run") == []


@pytest.mark.parametrize(("path", "sentence"), [("/none.ko", "vanished"), ("/bad.ko.xz", "is damaged"),
                                                ("/bad.ko.gz", "is damaged")])
def test_a_build_that_cannot_be_read_is_told(host: FakeHost, path: str, sentence: str) -> None:
    if "bad" in path:
        host.make(path, "text")
    with pytest.raises(PassthroughError, match=sentence):
        read_plain(host, path)


@pytest.mark.parametrize("change", [
    {"format": 2}, {"sha256": "x"}, {"source_sha256": "../"}, {"kernel": "../../etc"}, {"name": "a b"}, {"size": "x"},
    {"certificate": "?"}, {"certificate": "AAAA"}, {"aliases": None}, {"machine": "a/b"}, {"version": 5}, "text", None,
])
def test_a_manifest_that_is_none_is_told(change: Any) -> None:
    value = describe_module(GOOD, RUNNING, "1.0.0", source().sha256, SITE).as_json()
    assert from_json(value, "x").as_json() == value
    with pytest.raises(PassthroughError, match=r"/m\.json is not the manifest of a module"):
        from_json({**value, **change} if isinstance(change, dict) else change, "/m.json")


def test_an_unsigned_module_has_no_certificate() -> None:
    entry = describe_module(elf.module(RUNNING), RUNNING, "1.0.0", source().sha256, SITE)
    assert (entry.certificate, entry.certificate_sha256, entry.certificate_path) == (b"", None, None)
    assert from_json(entry.as_json(), "x") == entry


@pytest.mark.parametrize("payload", ["?", "[1]", '{"a": 5}', '{"a": "?"}', '{"a": "AAAA"}'])
def test_modules_that_arrive_damaged_are_told(payload: str) -> None:
    with pytest.raises(PassthroughError, match="arrived damaged"):
        unpack_modules(payload)


def test_an_unsigned_module_is_handed_out_where_that_is_allowed(controller: Controller) -> None:
    content = elf.module(RUNNING, flags=FLAGS)
    controller.manifests[RUNNING, MACHINE] = describe_module(content, RUNNING, "1", source().sha256, None).as_json()
    controller.contents[RUNNING] = content
    result = controller.hand_out()
    assert (result["changed"], result["kernels"][0]["signer"], result["signing"]["certificate"]) == (True, None, None)
    assert not controller.hand_out()["changed"]
