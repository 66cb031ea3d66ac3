# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module that one host builds and others are handed: what is kept of it, and what must hold on its target. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from .._core.errors import PassthroughError
from .._host.certificates import Certificate, parse_certificate
from .facts import CERTIFICATE_PREFIX, check_name
from .modulefile import ModuleFile, read_module
from .signing import signed_by

FORMAT = 1
MAX_MODULE_BYTES = 64 * 1024 * 1024
"""The module has some 100 KiB; more than this was not built from its source."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Prebuilt:
    """A signed module for one kernel release on one kind of machine.

    ``certificate`` is the signer's in DER, empty for a module without signature. ``source_sha256`` is the hash of the
    source that it was built from, as dkms_module computes it. ``size`` in bytes.
    """

    name: str
    version: str
    kernel: str
    machine: str
    sha256: str
    size: int
    vermagic: str
    srcversion: Optional[str]
    signer: Optional[str]
    certificate: bytes
    source_sha256: str
    aliases: tuple[str, ...]

    @property
    def file(self) -> str:
        """The name of its file on the controller; another content has another name."""
        return f"{self.name}-{self.sha256[:16]}.ko"

    @property
    def certificate_sha256(self) -> Optional[str]:
        return hashlib.sha256(self.certificate).hexdigest() if self.certificate else None

    @property
    def certificate_path(self) -> Optional[str]:
        """Where the certificate goes on a target, for mokutil."""
        return f"{CERTIFICATE_PREFIX}{self.certificate_sha256}.der" if self.certificate else None

    def parsed_certificate(self) -> Optional[Certificate]:
        return parse_certificate(self.certificate) if self.certificate else None

    def as_json(self) -> dict[str, Any]:
        """The content of its manifest.json."""
        return {"format": FORMAT, "name": self.name, "version": self.version, "kernel": self.kernel,
                "machine": self.machine, "file": self.file, "sha256": self.sha256, "size": self.size,
                "vermagic": self.vermagic, "srcversion": self.srcversion, "signer": self.signer,
                "certificate": base64.b64encode(self.certificate).decode("ascii"),
                "source_sha256": self.source_sha256, "aliases": list(self.aliases)}


def from_json(value: Any, origin: str) -> Prebuilt:
    """What ``as_json`` made; raises PassthroughError, naming ``origin``, for anything else."""
    try:
        if value["format"] != FORMAT:
            raise ValueError(f"format {value['format']} is not {FORMAT}")
        for key in ("sha256", "source_sha256"):
            if not _SHA256.fullmatch(value[key]):
                raise ValueError(f"{key} is no SHA-256")
        found = Prebuilt(
            check_name(value["name"], "package name"), check_name(value["version"], "package version"),
            check_name(value["kernel"], "kernel release"), check_name(value["machine"], "machine"),
            value["sha256"], int(value["size"]), str(value["vermagic"]), value["srcversion"], value["signer"],
            base64.b64decode(value["certificate"], validate=True), value["source_sha256"],
            tuple(str(alias) for alias in value["aliases"]))
        if found.certificate:
            found.parsed_certificate()
    except (KeyError, TypeError, ValueError, AttributeError, PassthroughError) as error:
        raise PassthroughError(f"{origin} is not the manifest of a module ({str(error)[:80]}): delete it, and export "
                               "the module again.") from error
    return found


def describe_module(content: bytes, kernel: str, version: str, source_sha256: str,
                    certificate: Optional[bytes]) -> Prebuilt:
    """The manifest of a module for the release ``kernel``; raises PassthroughError for what is none.

    ``certificate`` goes into it unless the module is signed with another.
    """
    module = _read(content, "The built module")
    signer = parse_certificate(certificate) if certificate else None
    return Prebuilt(module.name.replace("_", "-"), version, kernel, module.machine, hashlib.sha256(content).hexdigest(),
                    len(content), module.info.vermagic or "", module.info.srcversion, module.info.signer,
                    certificate if certificate and signed_by(module.info, signer) else b"", source_sha256,
                    module.info.aliases)


def verify(entry: Prebuilt, content: bytes, vermagic: Optional[str], enforced: Optional[bool]) -> None:
    """Raises PassthroughError unless ``content`` is the module of the manifest and this kernel can load it.

    ``vermagic`` is that of the kernel's own modules, None where it has none to compare with. ``enforced``: the kernel
    refuses modules without a trusted signature.
    """
    what = f"The module {entry.name} for kernel {entry.kernel} on {entry.machine}"
    found = hashlib.sha256(content).hexdigest()
    if found != entry.sha256:
        raise PassthroughError(f"{what} arrived with SHA-256 {found}, its manifest has {entry.sha256}: nothing was "
                               "written, export it again.")
    module = _read(content, what)
    for option, has, wants in (
            ("is for the machine", module.machine, entry.machine),
            ("is named", module.name, entry.name.replace("-", "_")),
            ("is for the kernel", (module.info.vermagic or "").partition(" ")[0], entry.kernel),
            ("has the vermagic", module.info.vermagic, vermagic or module.info.vermagic)):
        if has != wants:
            raise PassthroughError(f"{what} {option} {has!r} where {wants!r} is needed: nothing was written, export it "
                                   "again from a builder with this very kernel's headers.")
    if enforced and not module.info.signed:
        raise PassthroughError(f"{what} is not signed, and this kernel loads signed modules only: nothing was written, "
                               "export it again with signing_key and signing_certificate.")
    if entry.certificate and signed_by(module.info, entry.parsed_certificate()) is False:
        raise PassthroughError(f"{what} is signed by {module.info.signer!r} and not by the certificate in its "
                               "manifest: nothing was written, export it again.")


def _read(content: bytes, what: str) -> ModuleFile:
    try:
        return read_module(content)
    except ValueError as error:
        raise PassthroughError(f"{what} cannot be used: {error}.") from error


def pack_modules(contents: Mapping[str, bytes]) -> str:
    """Modules by their key as one short printable string, for the way between controller and host."""
    return json.dumps({key: base64.b64encode(zlib.compress(content, 9)).decode("ascii")
                       for key, content in contents.items()})


def unpack_modules(payload: Optional[str]) -> dict[str, bytes]:
    """What ``pack_modules`` made; raises PassthroughError for anything else. The caller checks the hashes."""
    try:
        return {str(key): zlib.decompressobj().decompress(base64.b64decode(text, validate=True), MAX_MODULE_BYTES)
                for key, text in json.loads(payload or "{}").items()}
    except (binascii.Error, zlib.error, ValueError, AttributeError, TypeError) as error:
        raise PassthroughError(f"The module arrived damaged ({error}): run again.") from error


def choose(entries: Iterable[Prebuilt], name: str, kernel: str, machine: str, source_sha256: Optional[str],
           certificate_sha256: Optional[str]) -> tuple[Optional[Prebuilt], str]:
    """The module for a kernel, or None with what is wrong with the one that is there."""
    entry = next((entry for entry in entries if (entry.name, entry.kernel, entry.machine) == (name, kernel, machine)),
                 None)
    if entry is None:
        return None, ""
    if source_sha256 and entry.source_sha256 != source_sha256:
        return None, " (what is there was built from another source)"
    if certificate_sha256 and entry.certificate_sha256 != certificate_sha256:
        return None, " (what is there is not signed with the certificate of 'certificate_sha256')"
    return entry, ""
