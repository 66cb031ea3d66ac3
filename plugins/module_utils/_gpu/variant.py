# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which VFIO driver serves a function best: the rule that libvirt uses, over the kernel's own alias files.

libvirt (10.0 and newer, managed='yes') takes every alias ``vfio_pci:...`` of modules.alias apart into its seven fields;
a field is ``*`` or has to be equal, and the alias with the fewest ``*`` wins, of equals the first. A driver that is
built into the kernel has no line there. We look for those in modules.builtin.modinfo as well, and libvirt (11.3) does
not: for a function whose only variant is built in, it takes vfio-pci.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

from .._core.host import Host
from . import sysfs

FALLBACK_MODULE = "vfio_pci"
_PREFIX = "vfio_pci:"
_LINE = f"alias {_PREFIX}"
_ALIASES = "modules.alias"
_BUILT_IN = "modules.builtin.modinfo"
# v, d, sv, sd, bc, sc and i, each up to where the next one begins; the values have upper-case digits only
_FIELDS = re.compile(r"v(.*?)d(.*?)sv(.*?)sd(.*?)bc(.*?)sc(.*?)i(\S*)")
# Names that were seen in sysfs. A module's driver cannot be looked up before the module is loaded, and check mode
# loads none.
_SEEN_DRIVERS = {"vfio_pci": "vfio-pci", "nvgrace_gpu_vfio_pci": "nvgrace_gpu_vfio_pci"}


@dataclass(frozen=True)
class Alias:
    """One ``alias vfio_pci:PATTERN MODULE`` line, without the prefix."""

    pattern: str
    module: str
    source: str

    def wildcards(self, fields: tuple[str, ...]) -> Optional[int]:
        """How many of its fields are open; None where it does not match the function with these ``fields``."""
        own = split_fields(self.pattern)
        if own is None or any(value not in ("*", field) for value, field in zip(own, fields)):
            return None
        return own.count("*")


@dataclass(frozen=True)
class PlannedModule:
    """A module that an earlier stage of a check run would have installed."""

    module: str
    driver: str
    aliases: tuple[str, ...]


@dataclass(frozen=True)
class Variant:
    """The chosen module, the sysfs name of its PCI driver (None: not known before it is loaded) and why."""

    module: str
    driver: Optional[str]
    source: str


def parse_aliases(text: str, source: str) -> list[Alias]:
    """The VFIO lines of a ``modules.alias`` file."""
    found = []
    # of some 20,000 lines a few are VFIO's: looking for those takes a twentieth of the time of looking at each line
    start = text.find(_LINE)
    while start >= 0:
        end = text.find("\n", start)
        fields = text[start + len(_LINE):end if end >= 0 else None].split()
        if len(fields) == 2:
            found.append(Alias(fields[0], fields[1], source))
        start = text.find(_LINE, start + 1)
    return found


def parse_builtin(data: bytes) -> list[Alias]:
    """The VFIO aliases of drivers that are part of the kernel, from ``modules.builtin.modinfo``: entries of
    ``module.key=value`` that end with NUL."""
    found = []
    if f".alias={_PREFIX}".encode() in data:
        for entry in data.decode("utf-8", "replace").split("\0"):
            module, _dot, rest = entry.partition(".")
            key, _equal, value = rest.partition("=")
            if key == "alias" and value.startswith(_PREFIX):
                found.append(Alias(value[len(_PREFIX):], module, _BUILT_IN))
    return found


def split_fields(text: str) -> Optional[tuple[str, ...]]:
    """The seven fields of an alias or modalias without its prefix, or None where it has another form."""
    match = _FIELDS.match(text)
    return None if match is None else match.groups()


def planned_aliases(planned: Iterable[PlannedModule]) -> list[Alias]:
    """Aliases of modules that are not installed yet, with or without the ``vfio_pci:`` prefix."""
    return [Alias(text[len(_PREFIX):] if text.startswith(_PREFIX) else text, item.module, "planned")
            for item in planned for text in item.aliases]


def best_alias(modalias: str, aliases: Iterable[Alias]) -> Optional[Alias]:
    """The matching alias with the fewest wildcards; of equals the first."""
    fields = split_fields(modalias.partition(":")[2])
    if fields is None:
        return None
    best, best_count = None, len(fields) + 1
    for alias in aliases:
        count = alias.wildcards(fields)
        if count is not None and count < best_count:
            best, best_count = alias, count
    return best


class VariantChooser:
    """Reads the alias files of the running kernel once and then chooses for any number of functions."""

    def __init__(self, host: Host, planned: Iterable[PlannedModule] = ()) -> None:
        self.host = host
        self.planned = tuple(planned)
        base = f"/lib/modules/{host.kernel_release()}"
        self.aliases = parse_aliases(host.read_text(f"{base}/{_ALIASES}") or "", _ALIASES)
        self.aliases += parse_builtin(host.read_bytes(f"{base}/{_BUILT_IN}") or b"")
        # the driver may be in both: an installed module beats the prediction, because the first of equals wins
        self.aliases += planned_aliases(self.planned)

    def choose(self, modalias: str) -> Variant:
        """The best variant for a function's modalias; vfio-pci where no line matches."""
        alias = best_alias(modalias, self.aliases)
        if alias is None:
            return Variant(FALLBACK_MODULE, self.driver_name(FALLBACK_MODULE), "fallback")
        return Variant(alias.module, self.driver_name(alias.module), alias.source)

    def named(self, name: str) -> Variant:
        """The variant that the operator named by its driver or its module, in either spelling."""
        module = sysfs.module_of_driver(self.host, name) or name.replace("-", "_")
        return Variant(module, self.driver_name(module), "named")

    def driver_name(self, module: str) -> Optional[str]:
        """PCI driver of a module: from sysfs once it is loaded, before that from what is planned or has been seen."""
        module = module.replace("-", "_")
        loaded = sysfs.driver_of_module(self.host, module)
        if loaded is not None:
            return loaded
        for item in self.planned:
            if item.module.replace("-", "_") == module:
                return item.driver
        return _SEEN_DRIVERS.get(module)
