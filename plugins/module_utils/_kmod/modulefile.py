# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A kernel module's file (ELF, 64 bit, little endian), as far as it says what it is. Pure: bytes in, values out.

A host judges what it was handed before anything of it stands on its disk, so no program can be asked.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Optional

from .._host.certificates import INTEGER, SEQUENCE, elements, name_of, only_element
from .facts import ModInfo

MACHINES = {183: "aarch64", 62: "x86_64"}

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_IDENT = b"\x7fELF\x02\x01"
_RELOCATABLE = 1
_MAGIC = b"~Module signature appended~\n"
_SIGNATURE = struct.Struct(">BBBBB3xI")
_PKCS7 = 2


@dataclass(frozen=True)
class ModuleFile:
    """What a module says of itself; ``machine`` is as ``uname -m`` has it. ``info`` is what modinfo would say."""

    machine: str
    name: str
    info: ModInfo


def read_module(content: bytes) -> ModuleFile:
    """Reads an uncompressed module; raises ValueError for what is none."""
    try:
        machine, strings = _modinfo(content)
        fields: dict[str, list[str]] = {}
        for text in strings.decode("utf-8", "replace").split("\0"):
            key, equals, value = text.partition("=")
            if equals:
                fields.setdefault(key, []).append(value)
        name, vermagic = fields["name"][0], fields["vermagic"][0]
    except (struct.error, OverflowError, KeyError, IndexError) as error:
        raise ValueError("it is no kernel module") from error
    issuer, serial = _signer(content)
    aliases = tuple(sorted(alias for alias in fields.get("alias", []) if alias.startswith("vfio_pci:")))
    return ModuleFile(machine, name, ModInfo(fields.get("srcversion", [""])[0] or None, issuer, aliases,
                                             content.endswith(_MAGIC), serial, vermagic.strip()))


def _modinfo(content: bytes) -> tuple[str, bytes]:
    """The machine, and the section .modinfo."""
    header = _HEADER.unpack_from(content)
    ident, kind, machine, offset, size, count, names = (header[0], header[1], header[2], header[6], header[11],
                                                        header[12], header[13])
    if not ident.startswith(_IDENT) or kind != _RELOCATABLE or size != _SECTION.size or names >= count:
        raise ValueError("it is no kernel module of a 64-bit machine")
    sections = [_SECTION.unpack_from(content, offset + number * size) for number in range(count)]
    table = _bytes_of(content, sections[names])
    found = next((section for section in sections if table[section[0]:].startswith(b".modinfo\0")), None)
    if found is None:
        raise ValueError("it is no kernel module: it has no .modinfo")
    return MACHINES.get(machine, f"machine {machine}"), _bytes_of(content, found)


def _bytes_of(content: bytes, section: tuple[int, ...]) -> bytes:
    return content[section[4]:section[4] + section[5]]


def _signer(content: bytes) -> tuple[Optional[str], Optional[str]]:
    """Common name of the issuer and serial number of the certificate that the signature names, as modinfo has them."""
    if not content.endswith(_MAGIC):
        return None, None
    end = len(content) - len(_MAGIC) - _SIGNATURE.size
    try:
        _algorithm, _hash, kind, _name, _key, size = _SIGNATURE.unpack_from(content, max(end, 0))
        if kind != _PKCS7:
            return None, None
        message = elements(only_element(content[max(end - size, 0):end]))
        signed = elements(only_element(message[1].content))
        signer = elements(only_element(signed[-1].content))
        issuer, serial = elements(signer[1].content)
        if signer[1].tag != SEQUENCE or serial.tag != INTEGER:
            return None, None
        return name_of(issuer.content), serial.content.hex()
    except (struct.error, ValueError, IndexError):
        return None, None
