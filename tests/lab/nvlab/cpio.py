# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Initramfs archives in the kernel's "newc" cpio format.

Source: Documentation/driver-api/early-userspace/buffer-format.rst in Linux.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

MAGIC = b"070701"


@dataclass(frozen=True)
class Member:
    """A regular file with its permission bits."""

    data: bytes
    mode: int = 0o644


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _record(inode: int, name: str, mode: int, data: bytes, links: int) -> bytes:
    encoded = name.encode() + b"\0"
    fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    header = MAGIC + b"".join(b"%08X" % field for field in fields)
    return _padded(header + encoded) + _padded(data)


def archive(files: Mapping[str, Member], directories: tuple[str, ...] = ()) -> bytes:
    """Return a cpio archive with ``files`` (path without leading slash -> Member) and the directories above them."""
    parents = {str(parent) for name in (*files, *directories) for parent in PurePosixPath(name).parents}
    wanted = sorted((parents | set(directories)) - {"."})
    records = [_record(number, name, stat.S_IFDIR | 0o755, b"", 2) for number, name in enumerate(wanted, 1)]
    records += [_record(number, name, stat.S_IFREG | member.mode, member.data, 1)
                for number, (name, member) in enumerate(sorted(files.items()), len(records) + 1)]
    records.append(_record(0, "TRAILER!!!", 0, b"", 1))
    return b"".join(records)
