# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which VFIO driver serves a function best: the rule that libvirt uses, over the kernel's own alias files."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

from .._core.host import Host
from . import sysfs

FALLBACK_MODULE = "vfio_pci"
_PREFIX = "vfio_pci:"
# Names that were seen in sysfs. A module's driver cannot be looked up before the module is loaded, and check mode
# loads none.
_SEEN_DRIVERS = {"vfio_pci": "vfio-pci", "nvgrace_gpu_vfio_pci": "nvgrace_gpu_vfio_pci"}


@dataclass(frozen=True)
class Alias:
    """One ``alias vfio_pci:PATTERN MODULE`` line, without the prefix."""

    pattern: str
    module: str
    source: str

    @property
    def wildcards(self) -> int:
        return self.pattern.count("*")


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
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[0] == "alias" and fields[1].startswith(_PREFIX):
            found.append(Alias(fields[1][len(_PREFIX):], fields[2], source))
    return found


def planned_aliases(planned: Iterable[PlannedModule]) -> list[Alias]:
    """Aliases of modules that are not installed yet, with or without the ``vfio_pci:`` prefix."""
    return [Alias(text[len(_PREFIX):] if text.startswith(_PREFIX) else text, item.module, "planned")
            for item in planned for text in item.aliases]


def best_alias(modalias: str, aliases: Iterable[Alias]) -> Optional[Alias]:
    """The matching alias with the fewest wildcards; of equals the first, as in libvirt."""
    name = modalias.partition(":")[2]
    matching = [alias for alias in aliases if fnmatch.fnmatchcase(name, alias.pattern)]
    return min(matching, key=lambda alias: alias.wildcards, default=None)


class VariantChooser:
    """Reads the alias files of the running kernel once and then chooses for any number of functions."""

    def __init__(self, host: Host, planned: Iterable[PlannedModule] = ()) -> None:
        self.host = host
        self.planned = tuple(planned)
        self.aliases: list[Alias] = []
        base = f"/lib/modules/{host.kernel_release()}"
        for name in ("modules.alias", "modules.builtin.alias"):
            self.aliases += parse_aliases(host.read_text(f"{base}/{name}") or "", name)
        # the driver may be in both: an installed module beats the prediction, because min() keeps the first
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
