# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of ``host_config``: where each one lies and what it says. Pure text, no access to the host."""

from __future__ import annotations

from typing import Optional

from .platform import KIB, hugepage_attribute
from .settings import UNLIMITED, HostSettings

MODPROBE_CONF = "/etc/modprobe.d/nvgrace-passthrough.conf"
MODULES_LOAD_CONF = "/etc/modules-load.d/nvgrace-passthrough-host.conf"
TMPFILES_CONF = "/etc/tmpfiles.d/nvgrace-passthrough-hugepages.conf"
LIMITS_CONF = "/etc/security/limits.d/71-nvgrace-passthrough.conf"
# apt reads names of letters, digits, hyphens and underscores, and warns of others (apt_preferences(5)).
PREFERENCES = "/etc/apt/preferences.d/71-nvgrace-passthrough"
# The daemon that starts QEMU: of the one-daemon and of the modular libvirt.
LIBVIRT_UNITS = ("libvirtd.service", "virtqemud.service")

# The packages through which Debian and Ubuntu bring a newer kernel: they have no version in their names, but a flavour
# and maybe a series. A POSIX extended regular expression. Packages of one kernel (linux-headers-6.12.1-1-arm64) stay
# free, because a module is built with them; so do linux-base, linux-firmware, linux-libc-dev.
NEWEST_KERNELS = (r"^linux-((image|headers|base|modules|modules-extra)-)?((cloud|rt)-)?"
                  r"(amd64|arm64|generic|nvidia|virtual|lowlatency|oem|server|aws|azure|gcp|oracle)"
                  r"(-16k|-64k|-lowlatency)?(-[0-9]+[.0-9]*[a-z]?)?(-hwe-[0-9.]+)?(-edge)?$")

_HEADER = "# Written by nvgrace.passthrough.host_config; changes by hand are overwritten.\n"


def memlock_dropin(unit: str) -> str:
    """Where systemd looks for our part of a unit."""
    return f"/etc/systemd/system/{unit}.d/71-nvgrace-passthrough.conf"


def grub_dropin(arguments: tuple[str, ...]) -> Optional[bytes]:
    """Appends to the default entries only: the recovery entry stays as the vendor made it, as a way back."""
    if not arguments:
        return None
    line = " ".join(arguments)
    return (_HEADER + f'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT {line}"\n').encode()


def modprobe_conf(settings: HostSettings) -> Optional[bytes]:
    """Blacklist and option lines."""
    lines = [f"blacklist {name}" for name in settings.modprobe_blacklist] + list(settings.modprobe_options)
    return _lines(lines)


def modules_load_conf(settings: HostSettings) -> Optional[bytes]:
    """Modules that systemd loads at boot."""
    return _lines(list(settings.modules_load))


def tmpfiles_conf(settings: HostSettings) -> Optional[bytes]:
    """tmpfiles.d writes the pool's size early at boot; sysctl.d could do so for the default size only."""
    wish = settings.hugepages
    return None if wish is None else _lines([f"w {hugepage_attribute(wish.size)} - - - - {wish.count}"])


def limits_conf(settings: HostSettings) -> Optional[bytes]:
    """For VMs that root or a member of the kvm group starts by hand. limits.conf(5) counts KiB."""
    if settings.memlock is None:
        return None
    value = settings.memlock if settings.memlock == UNLIMITED else str(-(-int(settings.memlock) // KIB))
    return _lines([f"root - memlock {value}", f"@kvm - memlock {value}"])


def unit_conf(settings: HostSettings) -> Optional[bytes]:
    """For the daemon that starts QEMU; systemd counts bytes."""
    if settings.memlock is None:
        return None
    value = "infinity" if settings.memlock == UNLIMITED else settings.memlock
    return _lines(["[Service]", f"LimitMEMLOCK={value}"])


def preferences(settings: HostSettings) -> Optional[bytes]:
    """No version of those packages can be installed; one that is installed stays as it is (apt_preferences(5))."""
    if not settings.hold_kernel:
        return None
    return _lines([f"Package: /{NEWEST_KERNELS}/", "Pin: version *", "Pin-Priority: -1"])


def _lines(lines: list[str]) -> Optional[bytes]:
    return (_HEADER + "\n".join(lines) + "\n").encode() if lines else None
