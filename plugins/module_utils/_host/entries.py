# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel arguments of Red Hat's family: what grubby says of its entries, and the files that new kernels take them from.

Pure text, no access to the host. Formats: grubby(8), the Boot Loader Specification, and "Configuring kernel
command-line parameters" of Red Hat's documentation. Nothing here has been run on such a host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

from .._core.errors import PassthroughError

DEFAULT_GRUB = "/etc/default/grub"

_INFO_LINE = re.compile(r'(index|kernel|args|id)=(?:"(.*)"|(.*))')
_GRUB_LINE = re.compile(r"^GRUB_CMDLINE_LINUX=(.*)$", re.MULTILINE)
# What sh takes as it stands between the quotes; anything else would have to be read as sh does.
_GRUB_VALUE = re.compile(r'"([^"$`\\]*)"|\'([^\']*)\'|([A-Za-z0-9_.,:/@+=%*~-]*)')


@dataclass(frozen=True)
class BootEntry:
    """One entry of the boot menu: the kernel's path, and its arguments with variables resolved where grubby does so."""

    kernel: str
    arguments: tuple[str, ...]


def parse_entries(text: str) -> tuple[BootEntry, ...]:
    """The entries in the output of ``grubby --info=ALL``; entries without a kernel (other systems) are left out."""
    entries: list[dict[str, str]] = []
    for line in text.splitlines():
        match = _INFO_LINE.fullmatch(line.strip())
        if match is None:
            continue
        key, value = match.group(1), match.group(2) if match.group(2) is not None else match.group(3)
        if key == "index":
            entries.append({})
        if entries:
            entries[-1][key] = value
    return tuple(BootEntry(entry["kernel"], tuple(entry.get("args", "").split()))
                 for entry in entries if entry.get("kernel"))


def key_of(argument: str) -> str:
    """The name of an argument, which grubby replaces and removes by."""
    return argument.partition("=")[0]


def without(words: Iterable[str], ours: Iterable[str]) -> tuple[str, ...]:
    """The words whose names are not among ours."""
    names = {key_of(word) for word in ours}
    return tuple(word for word in words if key_of(word) not in names)


def with_arguments(words: Iterable[str], old: Iterable[str], new: Iterable[str]) -> tuple[str, ...]:
    """The line that has our new arguments in place of our old ones; what is there already stays where it is."""
    wanted = tuple(new)
    kept = tuple(word for word in words if word in wanted or word not in set(old))
    return kept + tuple(word for word in wanted if word not in kept)


def grub_words(text: str) -> tuple[str, ...]:
    """The arguments in the last GRUB_CMDLINE_LINUX of a GRUB configuration; none without such a line.

    Raises PassthroughError where the line is more than a quoted text, so that only a shell could read it.
    """
    lines = _GRUB_LINE.findall(text)
    if not lines:
        return ()
    match = _GRUB_VALUE.fullmatch(lines[-1].strip())
    if match is None:
        raise PassthroughError(f"{DEFAULT_GRUB} has a GRUB_CMDLINE_LINUX that is more than a quoted text "
                               f"({lines[-1].strip()[:80]!r}), which is not edited here: make it one text in double "
                               "quotes, then run again.")
    return tuple(next(group for group in match.groups() if group is not None).split())


def grub_text(text: str, words: Iterable[str]) -> str:
    """The configuration with these arguments in its last GRUB_CMDLINE_LINUX, which is added where there is none."""
    line = f'GRUB_CMDLINE_LINUX="{" ".join(words)}"'
    matches = list(_GRUB_LINE.finditer(text))
    if not matches:
        return text + ("" if text.endswith("\n") or not text else "\n") + line + "\n"
    return text[:matches[-1].start()] + line + text[matches[-1].end():]


def picture(path: str, content: Optional[bytes], ours: Iterable[str]) -> Optional[tuple[str, ...]]:
    """What a file says apart from arguments of our names and from white space; None for a file that is not there."""
    if content is None:
        return None
    mine = tuple(ours)
    text = content.decode("utf-8", "surrogateescape")
    if path == DEFAULT_GRUB:
        return tuple(grub_text(text, without(grub_words(text), mine)).splitlines())
    return tuple(" ".join(without(line.split(), mine)) for line in text.splitlines() if line.strip())
