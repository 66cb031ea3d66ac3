# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who signs what DKMS builds, as values. Nothing here reads the host.

DKMS (3.0 and newer) signs each module that it builds, at a kernel upgrade too, with the key pair that
``mok_signing_key`` and ``mok_certificate`` in /etc/dkms/framework.conf or framework.conf.d/*.conf name, for all
packages alike; a later file wins. Without them it makes a pair of its own. So an own pair is one more file there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from .._core.errors import PassthroughError
from .._core.plan import RestoreFile, Step, WriteFile
from .._host.certificates import Certificate
from .facts import ModInfo
from .keypair import KeyPair

SETTINGS = "/etc/dkms/framework.conf.d/nvgrace-passthrough.conf"
FRAMEWORK = "/etc/dkms/framework.conf"

DKMS_PAIR = KeyPair("/var/lib/dkms/mok.key", "/var/lib/dkms/mok.pub")
UBUNTU_PAIR = KeyPair("/var/lib/shim-signed/mok/MOK.priv", "/var/lib/shim-signed/mok/MOK.der")
"""Key pairs that DKMS makes by itself at a first build, where nothing else is configured."""

_NAMES = ("mok_signing_key", "mok_certificate")
_SETTING = re.compile(r"""^\s*(mok_signing_key|mok_certificate)=(?:"([^"]*)"|'([^']*)'|([^\s#]*))""", re.MULTILINE)
# DKMS reads its settings as a shell script.
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._+@/-]{1,254}")


@dataclass(frozen=True)
class Signing:
    """Who will sign after this run.

    ``own``: the operator named the pair. ``certificate`` is None where its file is not there yet. ``settings`` is what
    SETTINGS has to hold (None: it is not needed), ``present`` what it holds now, ``journaled`` whether that is ours.
    """

    own: bool
    pair: KeyPair
    certificate: Optional[Certificate]
    settings: Optional[bytes] = None
    present: Optional[bytes] = None
    journaled: bool = False

    @property
    def own_sha256(self) -> Optional[str]:
        """SHA-256 of the own pair's certificate, None where DKMS's pair signs."""
        return self.certificate.sha256 if self.own and self.certificate else None

    def steps(self) -> list[Step]:
        """Makes DKMS use the pair, or gives its settings back."""
        if self.settings is not None:
            return [] if self.present == self.settings else [WriteFile(SETTINGS, self.settings)]
        return [RestoreFile(SETTINGS)] if self.journaled else []


def check_pair(key: Optional[str], certificate: Optional[str]) -> Optional[KeyPair]:
    """The pair of the two options, None without them; raises PassthroughError for one alone and for odd paths."""
    if not key and not certificate:
        return None
    if not key or not certificate:
        raise PassthroughError("'signing_key' and 'signing_certificate' belong together: give both, or none.")
    for option, path in (("signing_key", key), ("signing_certificate", certificate)):
        if not _PLAIN_PATH.fullmatch(path) or ".." in path.split("/"):
            raise PassthroughError(f"{path[:80]!r} cannot be {option}: an absolute path of letters, digits and "
                                   "'._+@-' is needed, because DKMS reads it as part of a shell script.")
    return KeyPair(key, certificate)


def settings_of(pair: KeyPair) -> bytes:
    """The content of SETTINGS that makes DKMS sign with the pair."""
    return ("# Written by dkms_module of nvgrace.passthrough: all modules that DKMS builds here are signed with this "
            f'pair.\nmok_signing_key="{pair.key}"\nmok_certificate="{pair.certificate}"\n').encode()


def configured(files: Sequence[tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Value and file of each signing setting in DKMS's files (path, text), in the order in which DKMS reads them."""
    found = {}
    for path, text in files:
        for name, double, single, bare in _SETTING.findall(text):
            found[name] = (double or single or bare, path)
    return found


def refuse_other_settings(pair: KeyPair, settings: dict[str, tuple[str, str]]) -> bool:
    """False where the settings of others already name the pair; raises PassthroughError where they name another."""
    wanted = dict(zip(_NAMES, (pair.key, pair.certificate)))
    for name, (value, path) in settings.items():
        if value and value != wanted[name]:
            raise PassthroughError(f"{path} already sets {name} to {value}: remove that line so that signing_key and "
                                   "signing_certificate can take its place, or leave both out.")
    return {name: value for name, (value, _path) in settings.items()} != wanted


def dkms_pair(settings: dict[str, tuple[str, str]], ubuntu: bool, release: str) -> KeyPair:
    """The pair that DKMS takes by itself for a kernel release."""
    key, certificate = (settings[name][0] if name in settings else "" for name in _NAMES)
    if ubuntu and not key:
        return UBUNTU_PAIR
    pair = (key or DKMS_PAIR.key, certificate or DKMS_PAIR.certificate)
    return KeyPair(*(path.replace("${kernelver}", release).replace("$kernelver", release) for path in pair))


def signed_by(info: ModInfo, certificate: Optional[Certificate]) -> Optional[bool]:
    """Whether a module carries the certificate's signature; None where one of the two is not known.

    The kernel finds the key for a signature by the certificate's issuer and serial number, and so is it here.
    """
    if not info.signed:
        return False
    if certificate is None or info.signer is None or info.sig_key is None:
        return None
    same_serial = info.sig_key.lstrip("0") == certificate.serial.lstrip("0")
    return same_serial and info.signer == certificate.issuer
