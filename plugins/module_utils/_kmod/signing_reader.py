# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adapter: reads how DKMS signs on a host, and checks the key pair that the operator names.

The key itself is read to compare it with its certificate, and is neither copied nor returned.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Optional

from .._core.errors import PassthroughError
from .._core.host import Host
from .._host.certificates import Certificate, certificate_der, parse_certificate
from .keypair import KeyPair, key_fits
from .signing import (
    FRAMEWORK,
    SETTINGS,
    Signing,
    configured,
    dkms_pair,
    refuse_other_settings,
    settings_of,
)

_OPENSSL_SECONDS = 30


def framework_files(host: Host) -> list[tuple[str, str]]:
    """Path and text of DKMS's settings, in the order in which DKMS reads them."""
    names = [FRAMEWORK] + [f"{FRAMEWORK}.d/{name}" for name in host.listdir(f"{FRAMEWORK}.d") if name.endswith(".conf")]
    found = [(name, host.read_text(name)) for name in names]
    return [(name, text) for name, text in found if text is not None]


def read_signing(host: Host, own: Optional[KeyPair], files: Sequence[tuple[str, str]], journaled: bool,
                 ubuntu: bool) -> Signing:
    """Who signs: the operator's pair, else what DKMS is configured for. Raises PassthroughError for a bad pair."""
    settings = configured([(path, text) for path, text in files if path != SETTINGS])
    present = host.read_bytes(SETTINGS)
    if own is None:
        # Without the file that is ours, as it will be after this run.
        pair = dkms_pair(settings, ubuntu, host.kernel_release())
        data = host.read_bytes(pair.certificate)
        return Signing(False, pair, _parse(data) if data else None, None, present, journaled)
    certificate = read_pair(host, own)
    wanted = settings_of(own) if refuse_other_settings(own, settings) else None
    if wanted is not None and wanted != present:
        _refuse_old_dkms(host)
    return Signing(True, own, certificate, wanted, present, journaled)


def read_pair(host: Host, pair: KeyPair) -> Certificate:
    """The certificate of a pair; raises PassthroughError where one of the files cannot serve."""
    key = _read(host, pair.key, "signing_key")
    info = os.stat(host.path(pair.key))
    if info.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or info.st_uid not in (0, os.geteuid()):
        raise PassthroughError(f"{pair.key} has mode {stat.S_IMODE(info.st_mode):04o} and belongs to user "
                               f"{info.st_uid}: a signing key must be root's alone, run 'chown root {pair.key}' and "
                               f"'chmod 0600 {pair.key}'.")
    certificate = _parse(_read(host, pair.certificate, "signing_certificate"))
    if certificate is None:
        raise PassthroughError(f"{pair.certificate} is not an X.509 certificate in DER or PEM: name the certificate "
                               f"that belongs to {pair.key} in signing_certificate.")
    try:
        fits = key_fits(key, certificate)
    except ValueError as error:
        raise PassthroughError(f"{pair.key} cannot sign modules: it is {error}.") from error
    if fits is None:
        fits = _openssl_says(host, pair)
    if fits is False:
        raise PassthroughError(f"{pair.key} does not belong to {pair.certificate} ({certificate.subject!r}): a module "
                               "signed with it would not load, name the two files of one pair.")
    return certificate


def _read(host: Host, path: str, option: str) -> bytes:
    data = host.read_bytes(path)
    if data is None:
        raise PassthroughError(f"{path} does not exist or is not a file that can be read: {option} names a file on the "
                               "host that builds, put it there first.")
    return data


def _parse(data: bytes) -> Optional[Certificate]:
    try:
        return parse_certificate(certificate_der(data))
    except ValueError:
        return None


def _openssl_says(host: Host, pair: KeyPair) -> Optional[bool]:
    """The same question to OpenSSL, for kinds of keys that are not read here; None where it cannot tell, either."""
    if host.which("openssl") is None:
        return None
    public = []
    for argv in (("openssl", "pkey", "-in", pair.key, "-pubout"),
                 ("openssl", "x509", "-in", pair.certificate, "-noout", "-pubkey")):
        result = host.run((*argv[:3], host.path(argv[3]), *argv[4:]), timeout=_OPENSSL_SECONDS, ok=())
        public.append(result.stdout.strip() if result.rc == 0 else None)
    return None if None in public else public[0] == public[1]


def _refuse_old_dkms(host: Host) -> None:
    program = host.which("dkms")
    script = host.read_text(program) if program else None
    if script is not None and "mok_signing_key" not in script:
        raise PassthroughError("This host's DKMS does not know mok_signing_key, as 3.0 and newer do: leave signing_key "
                               "out and enrol the key that DKMS signs with, or build on another host.")
