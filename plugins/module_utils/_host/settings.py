# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator wants of a host, checked before anything is read or written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Callable, Optional

from .._core.errors import PassthroughError
from .arguments import UNMANAGED
from .modprobe import normal

UNLIMITED = "unlimited"

# One command line is at most 2048 bytes on arm64 (COMMAND_LINE_SIZE) and has to hold the loader's own part too.
_CMDLINE_ROOM = 1536
_MAX_ENTRIES = 100
_MAX_LINE = 400
_MAX_PAGES = 1 << 24
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

# No character that a shell, GRUB's script language or systemd would read as anything but itself: arguments pass
# through all of them.
_ARGUMENT = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*(=[A-Za-z0-9_.,:/@+=%*~-]+)?")
_MODULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# modprobe.d(5) has "install" and "remove" too, which run shell commands as root.
_OPTION_LINE = re.compile(r"(options|softdep)( [A-Za-z0-9_.,:/@+=%*~-]+){2,}")
_UNSAFE = ("allow_unsafe_interrupts", "enable_unsafe_noiommu_mode", "pcie_acs_override")
# Kernel arguments, and values of theirs, without which no device is isolated.
_NO_ISOLATION = {"iommu": {"off"}, "intel_iommu": {"off"}, "amd_iommu": {"off"}, "intremap": {"off", "nosid"},
                 "nointremap": {""}}


@dataclass(frozen=True)
class HugepageWish:
    """``count`` pages of ``size`` bytes."""

    size: int
    count: int


@dataclass(frozen=True)
class HostSettings:
    """The wanted settings. An empty one means that nothing of ours shall be left on the host.

    ``kernel_settings`` are pairs of a name in arguments.CHOICES and a value, which become kernel arguments when the
    processor is known. ``memlock`` is bytes as digits, or "unlimited"; ``update_initramfs`` False leaves initramfs
    images alone; ``hold_kernel`` keeps apt from bringing a newer kernel.
    """

    kernel_arguments: tuple[str, ...] = ()
    kernel_settings: tuple[tuple[str, str], ...] = ()
    modprobe_blacklist: tuple[str, ...] = ()
    modprobe_options: tuple[str, ...] = ()
    modules_load: tuple[str, ...] = ()
    hugepages: Optional[HugepageWish] = None
    memlock: Optional[str] = None
    update_initramfs: bool = True
    hold_kernel: bool = False


def parse_settings(params: Mapping[str, Any]) -> HostSettings:
    """The settings in a module's parameters. Raises PassthroughError for the first one that cannot be right."""
    arguments = _entries(params, "kernel_arguments", _check_argument)
    check_room(arguments)
    return HostSettings(
        kernel_arguments=arguments,
        kernel_settings=tuple(sorted((name, value) for name, value in (params.get("kernel_settings") or {}).items()
                                     if value not in (None, UNMANAGED))),
        modprobe_blacklist=_unique(normal(name) for name in _entries(params, "modprobe_blacklist", _check_module)),
        modprobe_options=_entries(params, "modprobe_options", _check_option_line),
        modules_load=_entries(params, "modules_load", _check_module),
        hugepages=_hugepages(params.get("hugepages")),
        memlock=_memlock(params.get("memlock")),
        update_initramfs=params.get("update_initramfs", "auto") == "auto",
        hold_kernel=bool(params.get("hold_kernel")),
    )


def check_room(arguments: Iterable[str]) -> None:
    """Raises PassthroughError where a command line cannot hold the arguments."""
    if sum(len(argument) + 1 for argument in arguments) > _CMDLINE_ROOM:
        raise PassthroughError(f"kernel_arguments are longer than {_CMDLINE_ROOM} characters together: the kernel "
                               "would cut its command line.")


def parse_size(text: str, option: str) -> int:
    """Bytes of "2M", "1G" or plain digits; units are powers of 1024."""
    match = re.fullmatch(r"(\d{1,18})([KMGT]?)(?:i?B)?", text)
    if match is None or int(match.group(1)) == 0:
        raise PassthroughError(f"{option}: {_show(text)} is not a size such as 2M, 1G or a number of bytes.")
    return int(match.group(1)) * _UNITS[match.group(2)]


def _entries(params: Mapping[str, Any], option: str, check: Callable[[str, str], None]) -> tuple[str, ...]:
    values = params.get(option) or []
    if len(values) > _MAX_ENTRIES:
        raise PassthroughError(f"{option} has {len(values)} entries; at most {_MAX_ENTRIES} are accepted.")
    for value in values:
        check(value, option)
    return _unique(values)


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _show(value: str) -> str:
    """The value for a message: quoted, control characters escaped, never longer than a line."""
    return repr(value if len(value) <= 80 else value[:80] + "...")


def _check_argument(value: str, option: str) -> None:
    if len(value) > _MAX_LINE or not _ARGUMENT.fullmatch(value):
        raise PassthroughError(f"{option}: {_show(value)} is not a kernel argument of the form name or name=value "
                               "without spaces, quotes and shell characters.")
    _refuse_unsafe(value, option)
    name, _equals, words = value.partition("=")
    if _NO_ISOLATION.get(normal(name), set()).intersection(words.split(",")):
        raise PassthroughError(f"{option}: {_show(value)} would switch the IOMMU or interrupt remapping off, and "
                               "without them no device is isolated: leave it out.")


def _check_module(value: str, option: str) -> None:
    if not _MODULE.fullmatch(value):
        raise PassthroughError(f"{option}: {_show(value)} is not the name of a kernel module.")


def _check_option_line(value: str, option: str) -> None:
    if len(value) > _MAX_LINE or not _OPTION_LINE.fullmatch(value):
        raise PassthroughError(f"{option}: {_show(value)} is not a line of the form 'options MODULE NAME=VALUE' or "
                               "'softdep MODULE pre: OTHER', with single spaces and without quotes.")
    _refuse_unsafe(value, option)


def _refuse_unsafe(value: str, option: str) -> None:
    # Also without an underscore's exact form: the kernel takes "-" for "_" in parameter names.
    for name in _UNSAFE:
        if name in normal(value):
            raise PassthroughError(f"{option}: {name} would switch the isolation of VMs off and is never set here: "
                                   "use a host that isolates its devices.")


def _hugepages(value: Optional[Mapping[str, Any]]) -> Optional[HugepageWish]:
    if value is None:
        return None
    count = value["count"]
    if not 0 < count <= _MAX_PAGES:
        raise PassthroughError(f"hugepages: a count of {count} is not between 1 and {_MAX_PAGES}.")
    return HugepageWish(parse_size(value["size"], "hugepages.size"), count)


def _memlock(value: Optional[str]) -> Optional[str]:
    if value is None or value == UNLIMITED:
        return value
    return str(parse_size(value, "memlock"))
