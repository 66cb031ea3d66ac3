# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""An own key pair: checked, set in DKMS, changed, given back; and whether the kernel trusts it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Optional

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.host import CommandResult
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.certificates import parse_certificate
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.facts import ModInfo
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.modulefile import read_module
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.service import ensure
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.signing import (
    DKMS_PAIR,
    SETTINGS,
    UBUNTU_PAIR,
    configured,
    dkms_pair,
    signed_by,
)
from ansible_collections.nvgrace.passthrough.tests.unit._host.der import (
    DKMS_SERIAL,
    EC,
    certificate,
    pem,
    rsa_public,
    signature_list,
)
from ansible_collections.nvgrace.passthrough.tests.unit._kmod import elf
from ansible_collections.nvgrace.passthrough.tests.unit._kmod.fake_host import (
    MACHINE,
    NAME,
    OTHER,
    RUNNING,
    FakeHost,
    Killed,
    parameters,
)
from ansible_collections.nvgrace.passthrough.tests.unit._kmod.test_keypair import ec_key, pkcs8, rsa_key

KEY, CERTIFICATE = "/etc/keys/site.key", "/etc/keys/site.der"
KEY2, CERTIFICATE2 = "/etc/keys/site2.key", "/etc/keys/site2.pem"
BUILT = f"/var/lib/dkms/{NAME}/1.0.0/{RUNNING}/{MACHINE}/module/{NAME}.ko"
NUMBER = 1 << 500
SITE = certificate("Site", b"\x11", public=rsa_public(NUMBER))
SITE2 = certificate("Site", b"\x22", public=rsa_public(NUMBER + 2))
EFIVARS = "/sys/firmware/efi/efivars"
MOK = f"{EFIVARS}/MokListRT-605dab50-e046-4300-abb6-3dd810dd8b23"
NEW = f"{EFIVARS}/MokNew-605dab50-e046-4300-abb6-3dd810dd8b23"
SECURE_BOOT = f"{EFIVARS}/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
RSA_OID = bytes.fromhex("06092a864886f70d0101010500")


@pytest.fixture
def site(host: FakeHost) -> FakeHost:
    """A host with two pairs of the site on it."""
    host.make(KEY, pkcs8(RSA_OID, rsa_key(NUMBER)), 0o600)
    host.make(CERTIFICATE, SITE)
    host.make(KEY2, pkcs8(RSA_OID, rsa_key(NUMBER + 2)), 0o600)
    host.make(CERTIFICATE2, pem(SITE2, "CERTIFICATE"))
    return host


def present(host: FakeHost, check_mode: bool = False, key: Optional[str] = KEY,
            of: Optional[str] = CERTIFICATE, **overrides: Any) -> dict[str, Any]:
    return ensure(parameters(signing_key=key, signing_certificate=of, **overrides), check_mode, host)


def unsigned_pair(host: FakeHost, **overrides: Any) -> dict[str, Any]:
    return present(host, key=None, of=None, **overrides)


def absent(host: FakeHost) -> dict[str, Any]:
    return ensure(parameters(state="absent"), False, host)


def pristine(host: FakeHost) -> dict[str, str]:
    return {path: text for path, text in host.manifest().items() if "mok." not in path}


def secure(host: FakeHost) -> FakeHost:
    host.make(SECURE_BOOT, b"\6\0\0\0\1")
    host.make("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
    host.make("/proc/keys", "\n")
    return host


def test_an_own_pair_signs_and_dkms_will_go_on_with_it(site: FakeHost) -> None:
    predicted = present(site, check_mode=True)
    result = present(site)
    assert predicted["actions"] == result["actions"]
    assert predicted["diff"] == result["diff"]
    assert result["actions"][0] == f"write {SETTINGS}"
    assert site.read_text(SETTINGS).splitlines()[1:] == [f'mok_signing_key="{KEY}"', f'mok_certificate="{CERTIFICATE}"']
    assert result["kernels"][0]["signer"] == "Site"
    assert (result["signing"]["key_pair"], result["signing"]["certificate_subject"]) == ("own", "Site")
    assert result["signing"]["certificate_sha256"] == parse_certificate(SITE).sha256
    assert not site.exists(DKMS_PAIR.key)
    site.calls.clear()
    assert not present(site)["changed"]
    assert site.calls == []


def test_a_kernel_upgrade_is_signed_with_it_too(site: FakeHost) -> None:
    present(site)
    site.add_kernel(OTHER)
    # what the kernel's package calls
    for action in ("build", "install"):
        site.run(("dkms", action, "-m", NAME, "-v", "1.0.0", "-k", OTHER))
    result = present(site, kernels=[OTHER])
    assert (result["changed"], result["kernels"][0]["signer"]) == (False, "Site")


def test_absent_gives_the_settings_back(site: FakeHost) -> None:
    before = pristine(site)
    present(site)
    absent(site)
    assert pristine(site) == before


def test_settings_that_stood_there_come_back(site: FakeHost) -> None:
    site.make(SETTINGS, "# by hand\n", 0o640)
    before = pristine(site)
    present(site)
    unsigned_pair(site)
    assert site.read_text(SETTINGS) == "# by hand"
    absent(site)
    assert pristine(site) == before


@pytest.mark.parametrize(("key", "of", "signer", "serial"), [(KEY2, CERTIFICATE2, "Site", "22"),
                                                             (None, None, "DKMS module signing key", DKMS_SERIAL)])
def test_another_pair_signs_all_kernels_anew(site: FakeHost, key, of, signer, serial) -> None:
    site.add_kernel(OTHER)
    present(site, kernels=["installed"])
    site.calls.clear()
    predicted = present(site, check_mode=True, key=key, of=of)
    result = present(site, key=key, of=of)
    assert predicted["actions"] == result["actions"]
    assert site.dkms_calls() == ["remove", "add", "build", "install", "build", "install"]
    assert result["kernels"][0]["signer"] == signer
    for release in (RUNNING, OTHER):
        path = f"/lib/modules/{release}/updates/dkms/{NAME}.ko"
        assert elf_serial(site.read_bytes(path)) == serial
    assert not present(site, key=key, of=of)["changed"]


def elf_serial(content: Optional[bytes]) -> Optional[str]:
    return read_module(content or b"").info.sig_key


@pytest.mark.parametrize("start", ["nothing", "dkms's pair", "the other pair"])
def test_a_run_killed_within_any_program_is_finished_by_the_next(site: FakeHost, start: str) -> None:
    for step in range(1, 10):
        if start == "dkms's pair":
            unsigned_pair(site)
        elif start == "the other pair":
            present(site, key=KEY2, of=CERTIFICATE2)
        else:
            absent(site)
        site.calls.clear()
        site.kill_at = step
        try:
            present(site)
        except Killed:
            site.kill_at = 0
            assert present(site)["kernels"][0]["signer"] == "Site"
            assert not present(site)["changed"]
        else:
            break
    assert step > 3


def test_a_build_of_another_hand_is_signed_anew(site: FakeHost) -> None:
    present(site)
    for path in (BUILT, f"/lib/modules/{RUNNING}/updates/dkms/{NAME}.ko"):
        site.make(path, elf.signed(elf.module(RUNNING), "Somebody", b"\x33"))
    result = present(site)
    assert (result["changed"], result["kernels"][0]["signer"]) == (True, "Site")


def test_a_damaged_build_is_no_signed_one(site: FakeHost) -> None:
    present(site)
    for path in (BUILT, f"/lib/modules/{RUNNING}/updates/dkms/{NAME}.ko"):
        site.make(path, b"\x7fELF damaged")
    assert present(site)["kernels"][0]["signer"] == "Site"


def test_settings_removed_by_hand_come_again_without_a_build(site: FakeHost) -> None:
    present(site)
    site.remove(SETTINGS)
    site.calls.clear()
    assert present(site)["actions"] == [f"write {SETTINGS}"]
    assert site.calls == []


def test_settings_of_another_hand_that_name_the_pair_are_enough(site: FakeHost) -> None:
    site.make("/etc/dkms/framework.conf", f"mok_signing_key={KEY}\nmok_certificate='{CERTIFICATE}' # ours\n")
    result = present(site)
    assert (result["kernels"][0]["signer"], site.exists(SETTINGS)) == ("Site", False)
    assert not present(site)["changed"]


def test_dkms_that_does_not_sign_is_told(site: FakeHost) -> None:
    site.signs = False
    with pytest.raises(PassthroughError) as caught:
        present(site)
    assert f"built for kernel {RUNNING}, and {KEY} has not signed it (signer: none)" in caught.value.message


def test_a_host_that_cannot_sign_is_done_without_a_pair(host: FakeHost) -> None:
    host.signs = False
    unsigned_pair(host)
    assert not unsigned_pair(host)["changed"]


@pytest.mark.parametrize(("prepare", "sentence"), [
    (lambda host: host.remove(KEY), "/etc/keys/site.key does not exist or is not a file"),
    (lambda host: host.remove(CERTIFICATE), "/etc/keys/site.der does not exist or is not a file"),
    (lambda host: os.chmod(host.path(KEY), 0o640), "has mode 0640 and belongs to user"),
    (lambda host: host.make(KEY, SITE), "cannot sign modules: it is not a private key in PEM"),
    (lambda host: host.make(KEY, pem(b"x", "ENCRYPTED PRIVATE KEY")), "it is protected by a passphrase"),
    (lambda host: host.make(CERTIFICATE, "text"), "is not an X.509 certificate in DER or PEM"),
    (lambda host: host.make(CERTIFICATE, SITE2), "/etc/keys/site.key does not belong to /etc/keys/site.der ('Site')"),
    (lambda host: host.make("/etc/dkms/framework.conf.d/a.conf", 'mok_certificate="/x"\n'),
     "/etc/dkms/framework.conf.d/a.conf already sets mok_certificate to /x"),
    (lambda host: host.make("/usr/bin/dkms", "#!/bin/bash\nsign_tool\n"), "does not know mok_signing_key"),
    (lambda host: host.make(f"/lib/modules/{RUNNING}/build/include/config/auto.conf", "CONFIG_X=y\n"),
     f"Kernel {RUNNING} was built without support for signed modules"),
])
def test_a_pair_that_cannot_serve_is_one_sentence_and_changes_nothing(site: FakeHost, prepare, sentence) -> None:
    prepare(site)
    before = site.manifest()
    with pytest.raises(PassthroughError) as caught:
        present(site)
    assert sentence in caught.value.message
    assert "\n" not in caught.value.message
    assert site.manifest() == before


@pytest.mark.parametrize(("overrides", "sentence"), [
    ({"key": None}, "belong together"), ({"of": ""}, "belong together"),
    ({"key": "relative.key"}, "'relative.key' cannot be signing_key"),
    ({"key": "/a/../b"}, "cannot be signing_key"), ({"key": "/a b"}, "cannot be signing_key"),
    ({"of": '/a"; rm -rf /; "'}, "cannot be signing_certificate"), ({"of": "/$(id)"}, "cannot be signing_certificate"),
    ({"of": "/a\n"}, "cannot be signing_certificate"), ({"of": "/" + "x" * 300}, "cannot be signing_certificate"),
    ({"certificate_sha256": "0" * 64}, "asks for 0000"), ({"certificate_sha256": "xyz"}, "is not a SHA-256"),
])
def test_odd_options_are_refused(site: FakeHost, overrides: dict[str, Any], sentence: str) -> None:
    with pytest.raises(PassthroughError, match="together|cannot be|SHA-256") as caught:
        present(site, **overrides)
    assert sentence in caught.value.message
    assert not site.exists(SETTINGS)


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_hash_without_a_certificate_is_refused_before_the_build(site: FakeHost, check_mode: bool) -> None:
    before = site.manifest()
    with pytest.raises(PassthroughError, match="is not there yet, so that nothing can be compared"):
        unsigned_pair(site, check_mode=check_mode, certificate_sha256="0" * 64)
    assert site.manifest() == before


def test_the_right_hash_of_the_certificate_passes(site: FakeHost) -> None:
    assert present(site, certificate_sha256=parse_certificate(SITE).sha256)["changed"]


@pytest.mark.parametrize(("public", "rc", "accepted"), [
    (["one", "one"], 0, True), (["one", "two"], 0, False), (["one", "one"], 1, True), (None, 0, True)])
def test_openssl_is_asked_for_other_kinds_of_keys(site: FakeHost, monkeypatch: pytest.MonkeyPatch,
                                                  public: Optional[list[str]], rc: int, accepted: bool) -> None:
    site.make(KEY, pkcs8(EC, ec_key(b"")), 0o600)
    if public is not None:
        site.programs.add("openssl")
        answers = iter(public)
        run = site.run
        monkeypatch.setattr(site, "run", lambda argv, **options: (
            CommandResult(tuple(argv), rc, next(answers), "") if argv[0] == "openssl" else run(argv, **options)))
    if accepted:
        assert present(site, check_mode=True)["changed"]
    else:
        with pytest.raises(PassthroughError, match="does not belong to"):
            present(site, check_mode=True)


@pytest.mark.parametrize(("text", "ubuntu", "pair"), [
    ("", False, (DKMS_PAIR.key, DKMS_PAIR.certificate)),
    ("", True, (UBUNTU_PAIR.key, UBUNTU_PAIR.certificate)),
    ("# mok_signing_key=/no\n mok_signing_key='/k'\n", True, ("/k", DKMS_PAIR.certificate)),
    ("mok_signing_key=/$kernelver.key\nmok_certificate=\"/${kernelver}.der\"\n", False, ("/7.1.key", "/7.1.der")),
    ("mok_certificate=/c", False, (DKMS_PAIR.key, "/c")),
])
def test_the_pair_that_dkms_takes_by_itself(text: str, ubuntu: bool, pair: tuple[str, str]) -> None:
    found = dkms_pair(configured([("/etc/dkms/framework.conf", text)]), ubuntu, "7.1")
    assert (found.key, found.certificate) == pair


@pytest.mark.parametrize(("info", "of", "verdict"), [
    (ModInfo(), SITE, False), (ModInfo(signed=True), SITE, None), (ModInfo(signer="Site", signed=True), SITE, None),
    (ModInfo(signer="Site", signed=True, sig_key="11"), SITE, True),
    (ModInfo(signer="Site", signed=True, sig_key="0011"), SITE, True),
    (ModInfo(signer="Site", signed=True, sig_key="11"), SITE2, False),
    (ModInfo(signer="Other", signed=True, sig_key="11"), SITE, False),
    (ModInfo(signer="Site", signed=True, sig_key="11"), None, None),
])
def test_whose_signature_it_is(info: ModInfo, of: Optional[bytes], verdict: Optional[bool]) -> None:
    assert signed_by(info, parse_certificate(of) if of else None) is verdict


ATTRIBUTES = b"\6\0\0\0"


@pytest.mark.parametrize(("files", "state", "steps", "warning"), [
    ({}, "not-enrolled", 4, "'Site' that has signed the module for"),
    ({MOK: ATTRIBUTES + signature_list(SITE)}, "enrolled", 0, None),
    ({MOK: ATTRIBUTES + signature_list(SITE2)}, "not-enrolled", 4, "is not-enrolled: it has to be enrolled at"),
    ({NEW: ATTRIBUTES + signature_list(SITE)}, "pending", 3, "waits for the console"),
])
def test_under_secure_boot_the_certificate_must_be_enrolled(site: FakeHost, files, state, steps, warning) -> None:
    secure(site)
    for path, content in files.items():
        site.make(path, content)
    for result in (present(site), present(site)):
        assert result["signing"]["enforced"] is True
        assert result["signing"]["certificate_state"] == state
        assert len(result["signing"]["enrolment_steps"]) == steps
        assert [warning in text for text in result["warnings"]] == ([True] if warning else [])


def test_the_steps_name_a_file_that_mokutil_can_read(site: FakeHost) -> None:
    secure(site)
    assert present(site)["signing"]["enrolment_steps"][0].startswith(f"Run 'mokutil --import {CERTIFICATE}'")
    steps = present(site, key=KEY2, of=CERTIFICATE2)["signing"]["enrolment_steps"]
    assert steps[0].startswith(f"Run 'openssl x509 -in {CERTIFICATE2} -outform DER -out {CERTIFICATE2}.der'")
    assert f"mokutil --import {CERTIFICATE2}.der" in steps[1]


def test_nothing_is_asked_of_the_operator_where_it_is_not_needed(site: FakeHost) -> None:
    result = present(site)
    assert (result["signing"]["enforced"], result["signing"]["enrolment_steps"], result["warnings"]) == (False, [], [])
    assert result["signing"]["certificate_state"] == "unknown"


def test_a_kernels_own_driver_needs_no_certificate(site: FakeHost) -> None:
    secure(site)
    site.add_in_tree(RUNNING)
    result = present(site)
    assert (result["signing"]["key_pair"], result["signing"]["enrolment_steps"], result["warnings"]) == (None, [], [])
    assert not site.exists(SETTINGS)


@pytest.mark.parametrize(("prepare", "sentence"), [
    (lambda host: setattr(host, "signs", False), "is not signed: name signing_key"),
    (lambda host: host.make(DKMS_PAIR.certificate, "text"), "whose certificate is not known here"),
    (lambda host: host.remove("/sys/kernel/security/lockdown"), "cannot be read, and the certificate"),
    (lambda host: host.remove(SECURE_BOOT) or host.make("/sys/module/module/parameters/sig_enforce", "Y\n"),
     "is not-enrolled"),
    (lambda host: host.remove("/proc/keys") or host.remove(SECURE_BOOT), "is perhaps not enrolled"),
])
def test_a_module_that_may_not_load_is_told(host: FakeHost, prepare, sentence) -> None:
    secure(host)
    unsigned_pair(host)
    if sentence.startswith("is not signed"):
        host.signs = False
        unsigned_pair(host, force=True)
    else:
        prepare(host)
    (warning,) = unsigned_pair(host)["warnings"]
    assert sentence in warning


def test_without_uefi_nothing_can_be_enrolled(site: FakeHost) -> None:
    site.make("/sys/module/module/parameters/sig_enforce", "Y\n")
    site.make("/proc/keys", "\n")
    (step,) = present(site)["signing"]["enrolment_steps"]
    assert "was not booted through UEFI" in step


def test_no_temporary_file_holds_the_key(site: FakeHost) -> None:
    site.remove(KEY2)
    secret = (site.read_bytes(KEY) or b"")[40:80]
    result = present(site)
    holders = [str(path) for path in Path(site.root).rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert holders == [site.path(KEY)]
    assert secret.decode() not in str(result)
