# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The source on its way: collected, packed, checked, read."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import zlib
from pathlib import Path

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.collect import collect
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.source import (
    MAX_SOURCE_BYTES,
    ids_of,
    make_tree,
    pack,
    read_conf,
    unpack,
)

SHIPPED = Path(__file__).resolve().parents[3] / "files" / "kmod"


def write(directory: Path, *names: str) -> Path:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(f"content of {name}\n")
    return directory


def test_only_source_is_collected(tmp_path: Path) -> None:
    write(tmp_path, "dkms.conf", "main.c", "sub/region.h", "probe.sh", "README.md", "main.o", "main.mod.c", "x.ko",
          ".main.o.cmd", ".git/config", "tests/check.c", "Module.symvers", "modules.order", "main.c~")
    assert [path for path, _content in collect(str(tmp_path)).files] == ["dkms.conf", "main.c", "probe.sh",
                                                                         "sub/region.h"]


def test_the_shipped_source_names_itself_as_the_collection_expects() -> None:
    tree = collect(str(SHIPPED))
    conf = read_conf(tree)
    assert (conf.name, conf.module) == ("nvgrace-gpu-vfio-pci", "nvgrace-gpu-vfio-pci")
    assert {"10de:2342", "10de:2345", "10de:2348", "10de:2941", "10de:31c2"} <= ids_of(tree.aliases())


@pytest.mark.parametrize("link", ["main.c", "sub"])
def test_links_are_refused(tmp_path: Path, link: str) -> None:
    write(tmp_path, "dkms.conf")
    os.symlink("/etc", tmp_path / link)
    with pytest.raises(PassthroughError, match="is a symbolic link"):
        collect(str(tmp_path))


def test_a_directory_without_dkms_conf_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PassthroughError, match=r"has no dkms\.conf"):
        collect(str(tmp_path))


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "dkms.conf")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(PassthroughError, match="fifo on the controller is not a regular file"):
        collect(str(tmp_path))


def test_the_hash_can_be_computed_by_hand(tmp_path: Path) -> None:
    write(tmp_path, "dkms.conf", "main.c", "sub/region.h", "Kbuild")
    script = "find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum"
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == collect(str(tmp_path)).sha256


def test_packed_and_unpacked_is_the_same() -> None:
    tree = make_tree({"b.c": b"\x00\xff" * 1000, "a/dkms.conf": b""})
    assert unpack(pack(tree), tree.sha256) == tree
    assert [path for path, _content in tree.files] == ["a/dkms.conf", "b.c"]
    assert tree.content("nothing") is None


@pytest.mark.parametrize("payload", [
    "no base64 !", base64.b64encode(b"not compressed").decode(),
    base64.b64encode(zlib.compress(b"not json")).decode(),
    base64.b64encode(zlib.compress(b"[1]")).decode(),
    base64.b64encode(zlib.compress(b'{"a": 5}')).decode(),
    base64.b64encode(zlib.compress(b'{"a": "?"}')).decode(),
    pack(make_tree({"a": b"x" * 5000}))[:40],
    # more than the limit from a few kilobytes
    base64.b64encode(zlib.compress(b" " * (3 * MAX_SOURCE_BYTES))).decode(),
])
def test_a_damaged_payload_is_refused(payload: str) -> None:
    with pytest.raises(PassthroughError, match="arrived damaged"):
        unpack(payload, "0" * 64)


def test_another_hash_is_refused() -> None:
    with pytest.raises(PassthroughError, match=hashlib.sha256(b"").hexdigest()):
        unpack(pack(make_tree({"a": b"x"})), hashlib.sha256(b"").hexdigest())


@pytest.mark.parametrize("path", ["../a", "/etc/passwd", "a/../b", "a//b", "", "a\nb", "a\0b", ".hidden", "a/.b",
                                  "a b", "ä", "-a", "x" * 300, "a\\b", "a/"])
def test_a_name_that_could_leave_the_directory_is_refused(path: str) -> None:
    content = json.dumps({path: base64.b64encode(b"x").decode()}).encode()
    with pytest.raises(PassthroughError, match="cannot be the name of a source file") as caught:
        unpack(base64.b64encode(zlib.compress(content)).decode(), "0" * 64)
    assert "\n" not in caught.value.message


def test_too_much_source_is_refused() -> None:
    with pytest.raises(PassthroughError, match="more than"):
        make_tree({"a": b"x" * (MAX_SOURCE_BYTES + 1)})


@pytest.mark.parametrize("text,expected", [
    ('PACKAGE_NAME="n"\nPACKAGE_VERSION="1"\nBUILT_MODULE_NAME[0]="m"\n', ("n", "1", "m")),
    ("# c\nPACKAGE_NAME=n # c\n  PACKAGE_VERSION='1.0'\nBUILT_MODULE_NAME=m", ("n", "1.0", "m")),
])
def test_dkms_conf_is_read(text: str, expected: tuple[str, str, str]) -> None:
    conf = read_conf(make_tree({"dkms.conf": text.encode()}))
    assert (conf.name, conf.version, conf.module) == expected


@pytest.mark.parametrize("text,key", [
    ('PACKAGE_VERSION="1"\nBUILT_MODULE_NAME[0]="m"\n', "PACKAGE_NAME"),
    ('PACKAGE_NAME="n"\nPACKAGE_VERSION="$(date)"\nBUILT_MODULE_NAME[0]="m"\n', "PACKAGE_VERSION"),
])
def test_a_dkms_conf_without_literal_names_is_refused(text: str, key: str) -> None:
    with pytest.raises(PassthroughError, match=f"as {key}: a literal value is needed"):
        read_conf(make_tree({"dkms.conf": text.encode()}))


def test_a_source_without_dkms_conf_is_refused() -> None:
    with pytest.raises(PassthroughError, match=r"has no dkms\.conf"):
        read_conf(make_tree({"main.c": b""}))


def test_ids_come_from_the_id_table_only() -> None:
    tree = make_tree({"a.c": b"PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x31C2)\n"
                             b"PCI_DRIVER_OVERRIDE_DEVICE_VFIO(0x10DE, 0x2342)\n"
                             b"PCI_DEVICE(PCI_VENDOR_ID_NVIDIA, 0x1234)\n",
                      "probe.sh": b"VFIO(PCI_VENDOR_ID_NVIDIA, 0x5555)\n"})
    assert ids_of(tree.aliases()) == {"10de:31c2", "10de:2342"}


def test_a_source_may_have_the_limits_themselves_and_travels_whole() -> None:
    assert MAX_SOURCE_BYTES == 4 << 20
    tree = make_tree({"dkms.conf": os.urandom(MAX_SOURCE_BYTES), "a" * 255: b""})
    assert unpack(pack(tree), tree.sha256) == tree
    with pytest.raises(PassthroughError, match=f"has {MAX_SOURCE_BYTES + 1} bytes, more than"):
        make_tree({"dkms.conf": bytes(MAX_SOURCE_BYTES + 1)})
    with pytest.raises(PassthroughError) as caught:
        make_tree({"a" * 256: b""})
    assert caught.value.message.startswith(f"{'a' * 80!r} cannot be the name")


def test_what_unpacks_to_more_than_any_source_is_not_unpacked() -> None:
    """A few kilobytes that would become a hundred megabytes."""
    bomb = base64.b64encode(zlib.compress(b'{"dkms.conf": "' + b"A" * (100 << 20) + b'"}', 9)).decode()
    assert len(bomb) < 200_000
    with pytest.raises(PassthroughError, match="arrived damaged"):
        unpack(bomb, "0" * 64)


def test_a_payload_with_other_characters_is_damaged() -> None:
    tree = make_tree({"dkms.conf": b"x"})
    with pytest.raises(PassthroughError, match="arrived damaged"):
        unpack("!" + pack(tree), tree.sha256)
