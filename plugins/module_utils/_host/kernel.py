# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the kernel, its build options and headers, and the distribution."""

from __future__ import annotations

import os
import re
import shlex
import struct
import zlib
from typing import Any, Optional

from .._core.host import Host
from .facts import Distribution, Headers, Kernel

# Build options that decide something here: the rest of a configuration would only make the result long.
CONFIG_OPTIONS = (
    "ARM64_16K_PAGES", "ARM64_4K_PAGES", "ARM64_64K_PAGES", "ARM_SMMU_V3", "ARM_SMMU_V3_SVA", "DRM_NOUVEAU",
    "IOMMUFD", "IOMMU_DEFAULT_DMA_LAZY", "IOMMU_DEFAULT_DMA_STRICT", "IOMMU_DEFAULT_PASSTHROUGH", "KVM",
    "MEMORY_FAILURE", "MODULE_SIG", "MODULE_SIG_FORCE", "MODVERSIONS", "NODES_SHIFT", "NOVA_CORE",
    "NVGRACE_GPU_VFIO_PCI", "PCI_P2PDMA", "SECURITY_LOCKDOWN_LSM", "TEGRA241_CMDQV", "VFIO", "VFIO_DEVICE_CDEV",
    "VFIO_GROUP", "VFIO_NOIOMMU", "VFIO_PCI", "VFIO_PCI_DMABUF",
)
_OPTION_LINE = re.compile(rf"^CONFIG_({'|'.join(CONFIG_OPTIONS)})=(.*)$", re.MULTILINE)
_AT_PAGESZ = 6
_GZIP_WINDOW = 31


def read_kernel(host: Host) -> Kernel:
    """The running kernel, from /proc and its build configuration."""
    release = host.kernel_release()
    return Kernel(
        release=release,
        version_string=host.read_text("/proc/version") or "",
        machine=read_machine(host),
        page_size=_page_size(host),
        cmdline=host.read_text("/proc/cmdline") or "",
        config=_read_config(host, release),
    )


def read_machine(host: Host) -> str:
    """The architecture as ``uname -m`` names it."""
    return host.read_text("/proc/sys/kernel/arch") or os.uname().machine


def _page_size(host: Host) -> int:
    """AT_PAGESZ of our own auxiliary vector: pairs of native longs, ended by a pair of zeros."""
    data = host.read_bytes("/proc/self/auxv") or b""
    size = struct.calcsize("@LL")
    for offset in range(0, len(data) - size + 1, size):
        key, value = struct.unpack_from("@LL", data, offset)
        if key == _AT_PAGESZ:
            return int(value)
    return os.sysconf("SC_PAGE_SIZE")


def _read_config(host: Host, release: str) -> Optional[dict[str, Any]]:
    for path in (f"/boot/config-{release}", f"/lib/modules/{release}/config"):
        text = host.read_text(path)
        if text is not None:
            return parse_config(text)
    packed = host.read_bytes("/proc/config.gz")
    if packed is None:
        return None
    try:
        return parse_config(zlib.decompress(packed, _GZIP_WINDOW).decode("utf-8", "replace"))
    except zlib.error:
        return None


def parse_config(text: str) -> dict[str, Any]:
    """The options of CONFIG_OPTIONS from a kernel configuration; one that is not set, or not known there, is "n"."""
    values: dict[str, Any] = dict.fromkeys(CONFIG_OPTIONS, "n")
    for name, value in _OPTION_LINE.findall(text):
        values[name] = int(value) if value.isdigit() else value.strip('"')
    return values


def read_distribution(host: Host) -> Distribution:
    """/etc/os-release, or the vendor's copy of it."""
    text = host.read_text("/etc/os-release") or host.read_text("/usr/lib/os-release") or ""
    values = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not key.startswith("#"):
            values[key.strip()] = _unquote(value)
    return Distribution(values.get("ID", "linux"), values.get("VERSION_ID", ""),
                        tuple(values.get("ID_LIKE", "").split()))


def _unquote(value: str) -> str:
    try:
        return " ".join(shlex.split(value))
    except ValueError:
        return value.strip()


def read_headers(host: Host, release: str, distribution: Distribution) -> Headers:
    """Headers count as present where kbuild's Makefile is: a dangling ``build`` link is not enough."""
    path = f"/lib/modules/{release}/build"
    return Headers(path, host.exists(f"{path}/Makefile"), headers_package(release, distribution))


def headers_package(release: str, distribution: Distribution) -> Optional[str]:
    """The package with the headers of a kernel release, or None for a distribution that we do not know."""
    family = {distribution.id, *distribution.like}
    if family & {"debian", "ubuntu"}:
        return f"linux-headers-{release}"
    if family & {"fedora", "rhel", "centos"}:
        return f"kernel-devel-{release}"
    if family & {"suse", "opensuse", "sles"}:
        return f"kernel-{release.rsplit('-', 1)[-1]}-devel"
    return None
