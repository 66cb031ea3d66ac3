# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files by another hand that decide about the driver of a function at boot, and so may undo what is persistent."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

from .._core.host import Host
from .model import PciIdentity
from .persist import rule_path

_UDEV = ("/etc/udev/rules.d", "/run/udev/rules.d", "/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d",
         "/lib/udev/rules.d")
_MODPROBE = ("/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d",
             "/lib/modprobe.d")
_MODULES_LOAD = ("/etc/modules-load.d", "/run/modules-load.d", "/usr/local/lib/modules-load.d",
                 "/usr/lib/modules-load.d", "/lib/modules-load.d")
# Plain lists of modules that are loaded before udev sees the devices.
_MODULE_LISTS = ("/etc/modules", "/etc/initramfs-tools/modules")
# dracut.conf(5): the modules of force_drivers are loaded by the initramfs, before its udev.
_DRACUT = ("/etc/dracut.conf.d", "/usr/lib/dracut/dracut.conf.d")
_DRACUT_CONF = "/etc/dracut.conf"
_DRIVERCTL = "/etc/driverctl.d"
_CMDLINE = "/proc/cmdline"
# systemd-modules-load(8) and dracut.cmdline(7): each names modules, with commas between them.
_LOADED_BY = frozenset({"modules_load", "rd.modules_load", "rd.driver.pre"})
# Host drivers of NVIDIA GPUs. Where one is loaded by name before udev runs, it takes every GPU of the host.
_HOST_MODULES = frozenset({"nvidia", "nvidia_drm", "nvidia_modeset", "nvidia_uvm", "nouveau", "nova_core", "nova_drm"})

_TOKEN = re.compile(r'([A-Z]+)(?:\{([^}]*)\})?\s*(==|!=|\+=|-=|:=|=)\s*e?"((?:[^"\\]|\\.)*)"')
_FORCED = re.compile(r"""\bforce_drivers\+?=(["'])([^"']*)\1""")
_TOUCHES_DRIVERS = re.compile(r"driver_override|unbind|driverctl|new_id")


@dataclass(frozen=True)
class Subject:
    """A function that is bound at each boot: to which driver of which module, and the module that had it before."""

    identity: PciIdentity
    driver: str
    module: str
    previous_module: Optional[str] = None


@dataclass(frozen=True)
class Line:
    """One logical line of a file: comments left out, continued lines joined; ``number`` is that of its first line."""

    path: str
    number: int
    text: str

    def where(self) -> str:
        return self.path if self.path == _CMDLINE else f"{self.path}:{self.number}"


@dataclass(frozen=True)
class ForeignFiles:
    """What the host's files say, as lines by the program that reads them."""

    udev: tuple[Line, ...] = ()
    modprobe: tuple[Line, ...] = ()
    module_lists: tuple[Line, ...] = ()
    dracut: tuple[Line, ...] = ()
    driverctl: tuple[Line, ...] = ()
    arguments: tuple[str, ...] = ()


def read_foreign_files(host: Host, ours: Iterable[str]) -> ForeignFiles:
    """All files that could matter, without the udev rules of the addresses ``ours``, which this run decides on."""
    own = {rule_path(address) for address in ours}
    lists = (*_MODULE_LISTS, *_configured(host, _MODULES_LOAD, ".conf"))
    dracut = (_DRACUT_CONF, *_configured(host, _DRACUT, ".conf"))
    return ForeignFiles(
        udev=tuple(line for path in _configured(host, _UDEV, ".rules") if path not in own
                   for line in _lines(host, path, ("driver_override", "vfio", "unbind", "driverctl"))),
        modprobe=tuple(line for path in _configured(host, _MODPROBE, ".conf") for line in _lines(host, path)),
        module_lists=tuple(line for path in lists for line in _lines(host, path)),
        dracut=tuple(line for path in dracut for line in _lines(host, path, ("force_drivers",))),
        driverctl=tuple(line for name in host.listdir(_DRIVERCTL) for line in _lines(host, f"{_DRIVERCTL}/{name}")),
        arguments=tuple((host.read_text(_CMDLINE) or "").split()),
    )


def contradictions(subjects: Sequence[Subject], files: ForeignFiles) -> list[str]:
    """One sentence for each line that contradicts the binding of one of ``subjects``, with its file and number."""
    found = [*_udev(subjects, files.udev), *_driverctl(subjects, files.driverctl), *_modprobe(subjects, files.modprobe),
             *_module_lists(subjects, files.module_lists), *_dracut(subjects, files.dracut),
             *_arguments(subjects, files.arguments)]
    return list(dict.fromkeys(found))


def _configured(host: Host, directories: Sequence[str], suffix: str) -> list[str]:
    """The files that count, by name: of equal names the one of the first directory."""
    found: dict[str, str] = {}
    for directory in directories:
        for name in host.listdir(directory):
            if name.endswith(suffix):
                found.setdefault(name, directory)
    return [f"{directory}/{name}" for name, directory in sorted(found.items())]


def _lines(host: Host, path: str, words: Sequence[str] = ("",)) -> Iterator[Line]:
    """The logical lines of a file, if any of ``words`` is in it at all."""
    # not read_text(), which takes empty lines at the beginning away
    text = (host.read_bytes(path) or b"").decode("utf-8", "replace")
    if not any(word in text for word in words):
        return
    start, parts = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        start = start or number
        parts += line.strip()
        if parts.endswith("\\"):
            parts = parts[:-1]
            continue
        if parts and not parts.startswith("#"):
            yield Line(path, start, parts)
        start, parts = 0, ""


def _udev(subjects: Sequence[Subject], lines: Iterable[Line]) -> Iterator[str]:
    for line in lines:
        tokens = _TOKEN.findall(line.text)
        if _opens_vfio(tokens):
            yield f"{line.where()} opens VFIO devices to everybody: take the last digit of its MODE away."
        for subject in subjects:
            if _excluded(subject.identity, tokens):
                continue
            address = subject.identity.address
            for key, name, operator, value in tokens:
                if key == "ATTR" and name == "driver_override" and operator in ("=", ":=", "+=") \
                        and value != subject.driver:
                    yield (f"{line.where()} sets driver_override of {address} to {value or 'nothing'}, and this run to "
                           f"{subject.driver}: remove one of the two.")
                elif key in ("RUN", "PROGRAM", "IMPORT") and address in value and _TOUCHES_DRIVERS.search(value):
                    yield (f"{line.where()} runs a program on the driver of {address} ({value}): remove it, or leave "
                           "that function to it.")


def _opens_vfio(tokens: Sequence[tuple[str, str, str, str]]) -> bool:
    """Whether the rule gives everybody the node of a group or of a function. /dev/vfio/vfio, whose name is just "vfio",
    is open by design (systemd's own rules say so): it gives access to no device."""
    conditions: dict[str, list[str]] = {"SUBSYSTEM": [], "KERNEL": []}
    for key, _name, operator, value in tokens:
        if key in conditions and operator == "==":
            conditions[key].append(value)
    modes = [value for key, _name, operator, value in tokens if key == "MODE" and operator in ("=", ":=")]
    nodes = any(value in ("vfio", "vfio-dev") for value in conditions["SUBSYSTEM"]) if conditions["SUBSYSTEM"] else \
        any(re.match(r"vfio[^/]", value) for value in conditions["KERNEL"])
    return nodes and any(re.fullmatch(r"[0-7]{3,4}", mode) and int(mode, 8) & 0o006 for mode in modes)


def _excluded(identity: PciIdentity, tokens: Sequence[tuple[str, str, str, str]]) -> bool:
    """Whether a condition of the rule is false for the function. One that cannot be judged counts as true."""
    known = {
        ("KERNEL", ""): identity.address, ("KERNELS", ""): identity.address,
        ("SUBSYSTEM", ""): "pci", ("SUBSYSTEMS", ""): "pci",
        ("ATTR", "vendor"): f"0x{identity.vendor}", ("ATTRS", "vendor"): f"0x{identity.vendor}",
        ("ATTR", "device"): f"0x{identity.device}", ("ATTRS", "device"): f"0x{identity.device}",
        ("ATTR", "class"): f"0x{identity.class_code:06x}", ("ATTRS", "class"): f"0x{identity.class_code:06x}",
        ("ENV", "PCI_SLOT_NAME"): identity.address,
        ("ENV", "PCI_ID"): f"{identity.vendor}:{identity.device}".upper(),
        ("ENV", "PCI_CLASS"): f"{identity.class_code:X}",
    }
    for key, name, operator, pattern in tokens:
        value = known.get((key, name))
        if value is not None and operator in ("==", "!="):
            matches = any(fnmatch.fnmatchcase(value, part) for part in pattern.split("|"))
            if matches != (operator == "=="):
                return True
    return False


def _driverctl(subjects: Sequence[Subject], lines: Iterable[Line]) -> Iterator[str]:
    drivers = {subject.identity.address: subject.driver for subject in subjects}
    for line in lines:
        address = line.path.rpartition("/")[2]
        if address in drivers and line.text != drivers[address]:
            yield (f"{line.where()}: driverctl gives {address} to {line.text} at boot, and this run to "
                   f"{drivers[address]}: run driverctl unset-override {address}.")


def _modprobe(subjects: Sequence[Subject], lines: Iterable[Line]) -> Iterator[str]:
    for line in lines:
        words = line.text.split()
        command, module, rest = words[0], _normal(words[1]) if len(words) > 1 else "", words[2:]
        for subject in subjects:
            if command == "options" and module == "vfio_pci":
                yield from _by_ids(line.where(), subject, rest)
            elif command == "install" and module == _normal(subject.module):
                yield (f"{line.where()} replaces the loading of {subject.module} by a command of its own "
                       f"({' '.join(rest)}): remove the line, or {subject.identity.address} may have no driver after a "
                       "reboot.")
            elif command == "blacklist" and module == _normal(subject.module):
                yield _blacklisted(line.where(), subject)
            elif command == "softdep" and module == _normal(subject.module):
                early = [word for word in rest if _normal(word) in _host_modules(subject)]
                if early:
                    yield (f"{line.where()} loads {', '.join(early)} whenever {subject.module} is loaded, which may "
                           f"take {subject.identity.address} first: remove the line.")


def _module_lists(subjects: Sequence[Subject], lines: Iterable[Line]) -> Iterator[str]:
    for line in lines:
        for subject in subjects:
            yield from _loaded_early(line.where(), subject, [line.text.split()[0]])


def _dracut(subjects: Sequence[Subject], lines: Iterable[Line]) -> Iterator[str]:
    for line in lines:
        for _quote, modules in _FORCED.findall(line.text):
            for subject in subjects:
                yield from _loaded_early(line.where(), subject, modules.split())


def _arguments(subjects: Sequence[Subject], arguments: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        key, _equal, value = argument.partition("=")
        for subject in subjects:
            if _normal(key) == "vfio_pci.ids":
                yield from _by_ids("The kernel command line", subject, [f"ids={value}"])
            elif key in ("module_blacklist", "modprobe.blacklist") \
                    and _normal(subject.module) in {_normal(name) for name in value.split(",")}:
                yield _blacklisted("The kernel command line", subject)
            elif key in _LOADED_BY:
                yield from _loaded_early("The kernel command line", subject, value.split(","))


def _loaded_early(where: str, subject: Subject, modules: Iterable[str]) -> Iterator[str]:
    for module in modules:
        if _normal(module) in _host_modules(subject) and _normal(module) != _normal(subject.module):
            yield (f"{where} loads {module} at boot before udev has seen the devices, so that it may take "
                   f"{subject.identity.address}: remove it there.")


def _by_ids(where: str, subject: Subject, options: Iterable[str]) -> Iterator[str]:
    for option in options:
        key, _equal, value = option.partition("=")
        ids = [":".join(part.lower().split(":")[:2]) for part in value.strip('"').split(",")]
        if key == "ids" and subject.identity.vendor_device in ids:
            yield (f"{where} gives every {subject.identity.vendor_device} of the host to vfio-pci, listed or not, and "
                   f"this run {subject.identity.address} to {subject.driver}: remove the id there.")


def _blacklisted(where: str, subject: Subject) -> str:
    return (f"{where} blacklists {subject.module}, which udev and modules-load.d obey: remove it, or "
            f"{subject.identity.address} has no driver after a reboot.")


def _host_modules(subject: Subject) -> frozenset[str]:
    previous = {_normal(subject.previous_module)} if subject.previous_module else set()
    return _HOST_MODULES | previous


def _normal(module: str) -> str:
    """The kernel's spelling of a module's name."""
    return module.replace("-", "_")
