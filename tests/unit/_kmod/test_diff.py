# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Both sides of the diff, the state that stood before, and the steps that a case must not have."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import Any

from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.service import ensure
from ansible_collections.nvgrace.passthrough.tests.unit._host.der import certificate, rsa_public
from ansible_collections.nvgrace.passthrough.tests.unit._kmod.fake_host import (
    ALIAS,
    MACHINE,
    NAME,
    OTHER,
    RUNNING,
    FakeHost,
    parameters,
    source,
)
from ansible_collections.nvgrace.passthrough.tests.unit._kmod.test_keypair import pkcs8, rsa_key
from ansible_collections.nvgrace.passthrough.tests.unit._kmod.test_signing import CERTIFICATE, KEY, NUMBER, RSA_OID

RECORD = "/var/lib/nvgrace-passthrough/kmod.json"


def run(host: FakeHost, check_mode: bool = False, **overrides: Any) -> dict[str, Any]:
    return ensure(parameters(**overrides), check_mode, host)


def sides(result: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return json.loads(result["diff"]["before"]), json.loads(result["diff"]["after"])


def states(result: dict[str, Any]) -> list[dict[str, str]]:
    return [{release: kernel["state"] for release, kernel in side["kernels"].items()} for side in sides(result)]


def test_a_first_build_has_nothing_on_one_side_and_its_source_on_the_other(host: FakeHost) -> None:
    before, after = sides(run(host))
    assert before == {"source_sha256": None, "signing_certificate_sha256": None,
                      "kernels": {RUNNING: {"state": "absent", "modules_dep": "current"}}}
    assert after == {"source_sha256": source().sha256, "signing_certificate_sha256": None,
                     "kernels": {RUNNING: {"state": "installed", "modules_dep": "current"}}}
    again = sides(run(host))
    assert again == (after, after)


def test_the_certificate_of_an_own_pair_is_on_the_side_that_has_it(host: FakeHost) -> None:
    site = certificate("Site", b"\x11", public=rsa_public(NUMBER))
    host.make(KEY, pkcs8(RSA_OID, rsa_key(NUMBER)), 0o600)
    host.make(CERTIFICATE, site)
    mine = hashlib.sha256(site).hexdigest()
    before, after = sides(run(host, signing_key=KEY, signing_certificate=CERTIFICATE))
    assert (before["signing_certificate_sha256"], after["signing_certificate_sha256"]) == (None, mine)
    before, after = sides(run(host, state="absent"))
    assert (before["signing_certificate_sha256"], after["signing_certificate_sha256"]) == (mine, None)


def test_where_the_kernels_own_driver_is_taken_the_source_stays_what_it_was(host: FakeHost) -> None:
    run(host)
    host.add_in_tree(RUNNING)
    before, after = sides(run(host, tree=source(code="two")))
    assert before["source_sha256"] == after["source_sha256"] == source().sha256
    assert after["kernels"][RUNNING]["state"] == "in-tree"


def test_a_list_of_modules_that_does_not_name_it_is_a_difference(host: FakeHost) -> None:
    run(host)
    host.make(f"/lib/modules/{RUNNING}/modules.dep", "\n")
    before, after = sides(run(host))
    assert [side["kernels"][RUNNING]["modules_dep"] for side in (before, after)] == ["stale", "current"]
    host.make(f"/lib/modules/{RUNNING}/modules.dep", "\n")
    before, after = sides(run(host, state="absent"))
    assert [side["kernels"][RUNNING]["modules_dep"] for side in (before, after)] == ["stale", "current"]


def test_a_damaged_copy_is_a_build_and_no_installed_module(host: FakeHost) -> None:
    run(host)
    host.make(f"/lib/modules/{RUNNING}/updates/dkms/{NAME}.ko", "half of")
    assert states(run(host)) == [{RUNNING: "built"}, {RUNNING: "installed"}]


def test_another_version_that_is_active_is_not_the_one_asked_for(host: FakeHost) -> None:
    run(host)
    assert states(run(host, check_mode=True, tree=source(version="1.1.0"))) == [{RUNNING: "absent"},
                                                                                {RUNNING: "installed"}]
    run(host, tree=source(version="1.1.0"))
    assert states(run(host, check_mode=True)) == [{RUNNING: "built"}, {RUNNING: "installed"}]
    # of a removal any version is the right one, whether it is active or was only built
    assert states(run(host, check_mode=True, state="absent")) == [{RUNNING: "installed"}, {RUNNING: "absent"}]


def test_a_source_without_a_build_is_added_where_dkms_knows_it(host: FakeHost) -> None:
    run(host)
    shutil.rmtree(host.path(f"/var/lib/dkms/{NAME}/1.0.0/{RUNNING}"))
    host.remove(f"/var/lib/dkms/{NAME}/kernel-{RUNNING}-{MACHINE}")
    assert states(run(host, check_mode=True))[0] == {RUNNING: "added"}
    host.remove(f"/var/lib/dkms/{NAME}/1.0.0/source")
    assert states(run(host, check_mode=True))[0] == {RUNNING: "absent"}


def test_a_removal_knows_a_build_that_is_not_active(host: FakeHost) -> None:
    run(host)
    host.remove(f"/var/lib/dkms/{NAME}/kernel-{RUNNING}-{MACHINE}")
    host.remove(f"/lib/modules/{RUNNING}/updates/dkms/{NAME}.ko")
    assert states(run(host, check_mode=True, state="absent")) == [{RUNNING: "built"}, {RUNNING: "absent"}]


def test_a_module_by_another_hand_is_left_to_dkms(host: FakeHost) -> None:
    """DKMS keeps it aside; deleting it would lose it."""
    foreign = f"/lib/modules/{RUNNING}/updates/dkms/{NAME}.ko"
    host.make(foreign, f"ELF\nsrcversion:FOREIGN\nalias:{ALIAS}\n")
    pristine = host.read_bytes(foreign)
    actions = run(host)["actions"]
    assert not [action for action in actions if foreign in action]
    run(host, state="absent")
    assert host.read_bytes(foreign) == pristine


def test_a_second_kernel_is_built_for_and_nothing_is_dropped(host: FakeHost) -> None:
    run(host)
    host.add_kernel(OTHER)
    result = run(host, kernels=[OTHER])
    # the record comes first: it has to know a directory that the build will make
    assert [action.split(" -")[0] for action in result["actions"]] == [
        "record what a build will make in the state file kmod.json", "run dkms build", "run dkms install"]
    recorded = json.loads(host.read_text(RECORD) or "")
    assert f"/lib/modules/{OTHER}/updates" in json.dumps(recorded)


def test_a_build_that_makes_nothing_new_needs_no_record(host: FakeHost) -> None:
    run(host)
    shutil.rmtree(host.path(f"/var/lib/dkms/{NAME}/1.0.0/{RUNNING}"))
    assert not [action for action in run(host)["actions"] if action.startswith("record")]
