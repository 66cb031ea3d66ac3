# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host as ``host_config`` finds it, and the record of what it did beside the files in the journal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Optional

from .._core.host import FileState, Host
from .._core.journal import Journal, StateFile
from . import files
from .bootloader import ENTRIES_DIR, GRUB_DROPIN, KERNEL_INSTALL_CMDLINE, read_bootloader
from .entries import DEFAULT_GRUB, BootEntry, parse_entries
from .facts import Bootloader
from .modprobe import ModuleIndex, read_present_modules
from .platform import read_hugepages, read_memlock
from .processor import read_processor
from .until_boot import UntilBoot, options_in_effect, read_until_boot

JOURNAL = "host"
GRUBBY_INFO = ("grubby", "--info=ALL")
_KEY = "host"
_UNIT_DIRECTORIES = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
# The loader adds these itself at every boot; they describe one entry, not the wish of an operator.
_LOADER_ARGUMENTS = ("BOOT_IMAGE=", "initrd=")


@dataclass(frozen=True)
class HugepageRecord:
    """A pool that we resized: its pages before, the wanted ones, and the boot in which that was tried last."""

    size: int
    before: int
    wanted: int
    boot_id: str


@dataclass(frozen=True)
class Record:
    """``generated``: program -> fingerprint of the inputs that its output was made from;
    ``arguments_added``: the kernel arguments in the loader's files that are ours."""

    generated: Mapping[str, str]
    arguments_added: tuple[str, ...] = ()
    hugepages: Optional[HugepageRecord] = None


class RecordFile:
    """Changes single parts of the record, each of them atomically and beside the journal in the same file."""

    def __init__(self, host: Host) -> None:
        self._state = StateFile(host, JOURNAL)

    def load(self) -> Record:
        value = self._state.load().get(_KEY, {})
        pool = value.get("hugepages")
        return Record(dict(value.get("generated", {})), tuple(value.get("arguments_added", ())),
                      None if pool is None else HugepageRecord(**pool))

    def stamp(self, program: str, fingerprint: Optional[str]) -> None:
        """Notes that a program ran over inputs of this fingerprint; None: over none of ours."""
        generated = {**self.load().generated, program: fingerprint}
        self._save("generated", {name: value for name, value in generated.items() if value is not None})

    def arguments(self, added: tuple[str, ...]) -> None:
        """Notes which kernel arguments are ours."""
        self._save("arguments_added", list(added))

    def hugepages(self, pool: Optional[HugepageRecord]) -> None:
        """Notes the pool that we resized, or that there is none any more."""
        self._save("hugepages", None if pool is None else asdict(pool))

    def _save(self, part: str, content: object) -> None:
        value = self._state.load()
        record = value.pop(_KEY, {})
        record.pop(part, None)
        if content:
            record[part] = content
        if record:
            value[_KEY] = record
        self._state.save(value)


@dataclass(frozen=True)
class HostState:
    """Everything that the planner of ``host_config`` decides by.

    ``processor``: arm, intel, amd or other; ``has_iommu``: the running kernel uses an IOMMU. ``cmdline`` is that of the
    running kernel, ``loader_cmdline`` what kernel-install would use now; ``kernels`` are pairs of release and image;
    ``boot_entries`` is what grubby says of its menu, where it was asked. ``originals`` are the files in the journal as
    they were before us; ``hugepages`` maps bytes a page to pages; ``running_memlock`` maps the unit of a running
    libvirt daemon to its limit in bytes (-1: unlimited). ``initramfs`` is the program that makes the images, None where
    there are none. ``in_effect`` are those of the wanted lines of modprobe.d that no reboot is needed for.
    """

    release: str
    boot_id: str
    processor: str
    has_iommu: bool
    bootloader: Bootloader
    cmdline: tuple[str, ...]
    loader_cmdline: tuple[str, ...]
    kernels: tuple[tuple[str, str], ...]
    boot_entries: tuple[BootEntry, ...]
    files: Mapping[str, FileState]
    originals: Mapping[str, FileState]
    modules: ModuleIndex
    hugepages: Mapping[int, int]
    libvirt_units: tuple[str, ...]
    running_memlock: Mapping[str, int]
    initramfs: Optional[str]
    has_apt: bool
    record: Record
    until_boot: UntilBoot = UntilBoot()
    in_effect: frozenset[str] = frozenset()


def read_state(host: Host, arguments: bool = False, options: tuple[str, ...] = ()) -> HostState:
    """Reads the host; changes nothing. ``arguments``: kernel arguments are wanted, so that grubby's menu matters;
    ``options``: the wanted lines of modprobe.d."""
    release = host.kernel_release()
    cmdline = tuple((host.read_text("/proc/cmdline") or "").split())
    units = tuple(unit for unit in files.LIBVIRT_UNITS if _unit_exists(host, unit))
    originals = _originals(host)
    bootloader = read_bootloader(host)
    record = RecordFile(host).load()
    by_grubby = bootloader.kind == "bls" and (arguments or bool(record.arguments_added))
    return HostState(
        release=release,
        boot_id=host.read_text("/proc/sys/kernel/random/boot_id") or "",
        processor=read_processor(host),
        has_iommu=bool(host.listdir("/sys/class/iommu")),
        bootloader=bootloader,
        cmdline=cmdline,
        loader_cmdline=_loader_cmdline(host, cmdline),
        kernels=tuple(_kernels(host)),
        boot_entries=parse_entries(host.run(GRUBBY_INFO).stdout) if by_grubby else (),
        files={path: host.file_state(path) for path in _paths(host, units, originals, by_grubby)},
        originals=originals,
        modules=read_present_modules(host, release),
        hugepages={pool.size: pool.total for pool in read_hugepages(host)},
        libvirt_units=units,
        running_memlock=_running_memlock(host, units),
        initramfs=_initramfs_program(host),
        has_apt=host.exists("/etc/apt") and host.which("apt-get") is not None,
        record=record,
        until_boot=read_until_boot(host),
        in_effect=options_in_effect(host, options),
    )


def _paths(host: Host, units: tuple[str, ...], originals: Mapping[str, FileState], by_grubby: bool) -> list[str]:
    fixed = [files.MODPROBE_CONF, files.MODULES_LOAD_CONF, files.TMPFILES_CONF, files.LIMITS_CONF, files.PREFERENCES,
             GRUB_DROPIN, KERNEL_INSTALL_CMDLINE]
    if by_grubby:
        fixed += [DEFAULT_GRUB, *(f"{ENTRIES_DIR}/{name}" for name in host.listdir(ENTRIES_DIR)
                                  if name.endswith(".conf"))]
    return sorted({*fixed, *map(files.memlock_dropin, units), *originals})


def _originals(host: Host) -> dict[str, FileState]:
    journal = Journal(host, JOURNAL)
    found = ((path, journal.original(path)) for path in journal.paths())
    return {path: original for path, original in found if original is not None}


def _loader_cmdline(host: Host, running: tuple[str, ...]) -> tuple[str, ...]:
    """kernel-install's own order: the host's file, the vendor's file, the running kernel."""
    for path in (KERNEL_INSTALL_CMDLINE, "/usr/lib/kernel/cmdline"):
        text = host.read_text(path)
        if text:
            return tuple(text.split())
    return tuple(word for word in running if not word.startswith(_LOADER_ARGUMENTS))


def _kernels(host: Host) -> Iterator[tuple[str, str]]:
    for release in host.listdir("/lib/modules"):
        for image in (f"/boot/vmlinuz-{release}", f"/lib/modules/{release}/vmlinuz"):
            if host.exists(image):
                yield release, image
                break


def _initramfs_program(host: Host) -> Optional[str]:
    """The distribution's own program; Debian's calls dracut itself where that is installed instead."""
    images = host.listdir("/boot")
    for program, prefix in (("update-initramfs", "initrd.img-"), ("dracut", "initramfs-")):
        if any(name.startswith(prefix) for name in images) and host.which(program) is not None:
            return program
    return None


def _unit_exists(host: Host, unit: str) -> bool:
    return any(host.exists(f"{directory}/{unit}") for directory in _UNIT_DIRECTORIES)


def _running_memlock(host: Host, units: tuple[str, ...]) -> dict[str, int]:
    limits = {}
    for unit in units:
        pid = host.read_text(f"/run/{unit.split('.')[0]}.pid") or ""
        limit = read_memlock(host, pid) if re.fullmatch(r"\d+", pid) else None
        if limit is not None:
            limits[unit] = limit
    return limits
