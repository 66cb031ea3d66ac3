# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module's file: what it says of itself, and who has signed it."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.modulefile import read_module
from ansible_collections.nvgrace.passthrough.tests.unit._host.der import der, name
from ansible_collections.nvgrace.passthrough.tests.unit._kmod import elf

RELEASE = "6.17.0-1008-nvidia-64k"
ALIAS = "vfio_pci:v000010DEd00002342sv*sd*bc*sc*i*"
PLAIN = elf.module(RELEASE, "ABCD", ALIAS)


def test_what_a_module_says() -> None:
    found = read_module(PLAIN)
    assert (found.machine, found.name) == ("aarch64", "nvgrace_gpu_vfio_pci")
    assert found.info.vermagic == f"{RELEASE} SMP preempt mod_unload aarch64"
    assert (found.info.srcversion, found.info.aliases) == ("ABCD", (ALIAS,))
    assert (found.info.signed, found.info.signer, found.info.sig_key) == (False, None, None)


@pytest.mark.parametrize(("machine", "expected"), [(elf.AARCH64, "aarch64"), (elf.X86_64, "x86_64"),
                                                   (243, "machine 243")])
def test_machine(machine: int, expected: str) -> None:
    assert read_module(elf.module(RELEASE, machine=machine)).machine == expected


def test_a_module_without_srcversion() -> None:
    assert read_module(elf.elf(["name=x", "vermagic=y", "srcversion="])).info.srcversion is None


@pytest.mark.parametrize(("content", "signer", "serial"), [
    (elf.signed(PLAIN, "Site", b"\0\xff"), "Site", "00ff"),
    (elf.signed(PLAIN, "", b"", signer=der(0x80, b"\xab")), None, None),
    (elf.signed(PLAIN, "", b"", signer=der(0x30, name("Site"), der(0x04, b"\1"))), None, None),
    (elf.signed(PLAIN, "Site", b"\1", kind=1), None, None),
    (PLAIN + bytes(40) + elf.MAGIC, None, None),
    (PLAIN + struct.pack(">BBBBB3xI", 0, 0, 2, 0, 0, 1 << 31) + elf.MAGIC, None, None),
], ids=["issuer and serial", "key id", "no serial", "another kind", "zeros", "a size that lies"])
def test_signatures(content: bytes, signer: str, serial: str) -> None:
    info = read_module(content).info
    assert (info.signed, info.signer, info.sig_key) == (True, signer, serial)


@pytest.mark.parametrize("content", [
    b"", b"\x7fELF", b"#!/bin/sh\n" + bytes(100), PLAIN[:80], elf.elf([]), elf.elf(["name=x"]), elf.elf(["vermagic=x"]),
    elf.elf(["name=x", "vermagic=y"], section=b".text"), elf.elf(["name=x", "vermagic=y"], kind=2),
    elf.elf(["name=x", "vermagic=y"], ident=b"\x7fELF\x01\x01\x01"), PLAIN[:62] + b"\xff\xff" + PLAIN[64:],
    PLAIN[:40] + b"\xff" * 8 + PLAIN[48:],
])
def test_what_is_no_module_is_told(content: bytes) -> None:
    with pytest.raises(ValueError, match="it is no kernel module"):
        read_module(content)


@given(st.binary(max_size=40), st.integers(0, 700))
def test_damage_raises_nothing_else(noise: bytes, place: int) -> None:
    content = elf.signed(PLAIN, "Site", b"\x11")
    with contextlib.suppress(ValueError):
        read_module(content[:place] + noise + content[place + len(noise):])
