# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a build needs and the host lacks, by the names of the distribution's packages. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .._core.errors import PassthroughError
from .facts import HostFacts, Package

# 6.12.107+deb13-arm64, 6.17.0-1008-nvidia-64k: what stands behind version and build.
_FLAVOUR = re.compile(r"\d[^-]*(?:-\d[^-]*)?-([a-z].*)")


@dataclass(frozen=True)
class Missing:
    """``things`` in words for the sentence, ``packages`` as the distribution names them (empty where unknown)."""

    things: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    def sentence(self, package: Package, done: str) -> str:
        what = " and ".join(filter(None, (", ".join(self.things[:-1]), self.things[-1])))
        verb = "is" if len(self.things) == 1 and not self.things[0].startswith("the headers") else "are"
        remedy = f"install {' '.join(self.packages)}" if self.packages else "install them"
        return f"{package.name} cannot be {done} on this host because {what} {verb} missing: {remedy}, then run again."


def headers_package(family: str, release: str) -> str:
    """The package with the headers of a kernel, or "" where the distribution is not known."""
    if family == "debian":
        return f"linux-headers-{release}"
    if family == "rhel":
        version, _plus, flavour = release.partition("+")
        return f"kernel-{flavour}-devel-{version}" if flavour else f"kernel-devel-{version}"
    if family == "suse":
        return f"kernel-{release.rpartition('-')[2]}-devel"
    return ""


def following_packages(release: str, version_id: str) -> tuple[tuple[str, str], ...]:
    """Debian's and Ubuntu's packages that always depend on the newest kernel of this flavour: images, and headers.

    ``version_id`` is that of os-release: Ubuntu has newer kernels for an older release under a name of their own.
    """
    match = _FLAVOUR.fullmatch(release)
    names = (match[1], f"{match[1]}-hwe-{version_id}") if match else ()
    return tuple((f"linux-image-{name}", f"linux-headers-{name}") for name in names)


def missing_for_build(facts: HostFacts, releases: Sequence[str], export: bool = False) -> Missing:
    """What is missing to build for these kernels; raises PassthroughError for a kernel that is not installed.

    An ``export`` needs no more of a kernel than its headers.
    """
    things: list[str] = []
    packages: list[str] = []
    for program in ("dkms", "make"):
        if program not in facts.programs:
            things.append(program)
            packages.append(program)
    for release in releases:
        kernel = facts.kernel(release)
        if not kernel.exists and not export:
            raise PassthroughError(f"Kernel {release} is not installed on this host: /lib/modules/{release} does not "
                                   "exist; name another one in 'kernels'.")
        if kernel.missing_compiler and kernel.missing_compiler not in things:
            things.append(kernel.missing_compiler)
            packages.append(kernel.missing_compiler)
        if not kernel.headers:
            things.append(f"the headers of kernel {release}")
            packages += [headers_package(facts.family, release), "" if export else kernel.follower or ""]
    return Missing(tuple(things), tuple(name for name in packages if name))


def missing_for_removal(facts: HostFacts) -> Missing:
    """DKMS itself must still be there to take its modules out."""
    return Missing() if "dkms" in facts.programs else Missing(("dkms",), ("dkms",))
