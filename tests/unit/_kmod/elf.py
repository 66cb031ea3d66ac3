# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel modules made byte by byte: an ELF file with .modinfo, and the kernel's signature behind it."""

from __future__ import annotations

import struct
from typing import Optional

from ansible_collections.nvgrace.passthrough.tests.unit._host.der import der, name

AARCH64, X86_64 = 183, 62
SIGNED_DATA, DATA = bytes.fromhex("2a864886f70d010702"), bytes.fromhex("2a864886f70d010701")
MAGIC = b"~Module signature appended~\n"


def elf(strings: list[str], machine: int = AARCH64, section: bytes = b".modinfo", kind: int = 1,
        ident: bytes = b"\x7fELF\x02\x01\x01") -> bytes:
    info = b"".join(text.encode() + b"\0" for text in strings)
    names = b"\0" + section + b"\0.shstrtab\0"
    start = 64
    table = start + len(info) + len(names)
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, kind, machine, 1, 0, 0, table, 0, 64, 0, 0, 64, 3, 2)
    sections = [bytes(64)]
    for label, offset, size in ((1, start, len(info)), (2 + len(section), start + len(info), len(names))):
        sections.append(struct.pack("<IIQQQQIIQQ", label, 1, 0, 0, offset, size, 0, 0, 1, 0))
    return header + info + names + b"".join(sections)


def module(release: str, srcversion: str = "ABCD", alias: Optional[str] = None, machine: int = AARCH64,
           module_name: str = "nvgrace_gpu_vfio_pci", flags: str = " SMP preempt mod_unload aarch64 ") -> bytes:
    aliases = [f"alias={alias}"] if alias else []
    return elf(["license=GPL", *aliases, f"srcversion={srcversion}", "depends=", f"name={module_name}",
                f"vermagic={release}{flags}"], machine)


def signed(content: bytes, issuer: str, serial: bytes, signer: Optional[bytes] = None, kind: int = 2) -> bytes:
    """With a signature of zeros: what is read of it is who has signed."""
    who = signer or der(0x30, name(issuer), der(0x02, serial))
    info = der(0x30, der(0x02, b"\1"), who, der(0x30), der(0x30), der(0x04, bytes(8)))
    message = der(0x30, der(0x06, SIGNED_DATA), der(0xA0, der(0x30, der(0x02, b"\1"), der(0x31),
                                                              der(0x30, der(0x06, DATA)), der(0x31, info))))
    return content + message + struct.pack(">BBBBB3xI", 0, 0, kind, 0, 0, len(message)) + MAGIC
