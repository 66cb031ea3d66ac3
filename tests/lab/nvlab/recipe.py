# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""What an image and an emulator consist of: data only, and the data is what the cache keys are made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .cache import digest

SUITE = "trixie"
BACKPORTS = f"{SUITE}-backports"
DISK_SIZE = "8G"
ASSETS = Path(__file__).resolve().parent.parent / "image"

USERLAND = (
    # a bootable host that Ansible can talk to
    "systemd-sysv", "udev", "dbus", "libpam-systemd", "openssh-server", "sudo", "python3", "python3-apt",
    "iproute2", "pciutils", "procps", "kmod", "initramfs-tools", "zstd",
    # what DKMS needs without a network
    "dkms", "gcc", "make", "openssl",
    # the virtualisation host
    "libvirt-daemon-system", "libvirt-clients", "qemu-utils", "busybox-static",
)
# Nobody reads these on a host that lives for minutes, and they are a third of its size.
EXCLUDED_PATHS = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
# mmdebstrap's options for an image; {assets} is the directory of our scripts, "$1" mmdebstrap's name of the root.
INSTALL_OPTIONS = (
    "--mode=root", "--variant=minbase", "--format=directory",
    '--aptopt=Acquire::Check-Valid-Until "false"',
    '--aptopt=APT::Install-Recommends "false"',
    "--dpkgopt=force-unsafe-io",
    *(f"--dpkgopt=path-exclude={path}" for path in EXCLUDED_PATHS),
    f'--setup-hook=SUITE={SUITE} {{assets}}/backports.sh "$1"',
    # Before any package: the initrd's module list must be there when the kernel makes its initrd.
    '--essential-hook=cp -r --no-preserve=ownership {assets}/overlay/. "$1"',
    '--customize-hook={assets}/customize.sh "$1"',
)
# More of them where the image's programs are emulated during the build.
FOREIGN_OPTIONS = (
    '--extract-hook={assets}/native-tools.sh "$1"',
    '--aptopt=DPkg::Path "/native:/usr/sbin:/usr/bin:/sbin:/bin"',
)


@dataclass(frozen=True)
class Arch:
    """What differs between the architectures of a lab. Names are Debian's and QEMU's."""

    name: str
    qemu: str
    packages: tuple[str, ...]
    console: str


@dataclass(frozen=True)
class Kernel:
    """A kernel that a lab can run: version prefix and the Debian suite that carries it."""

    version: str
    suite: str


ARCHES = {
    "arm64": Arch("arm64", "aarch64", ("qemu-system-arm", "qemu-efi-aarch64"), "ttyAMA0"),
    "amd64": Arch("amd64", "x86_64", ("qemu-system-x86", "ovmf"), "ttyS0"),
}
KERNELS = {
    "7.3": Kernel("7.3", BACKPORTS),
    "6.12": Kernel("6.12", SUITE),
}
EMULATOR_PACKAGES = ("qemu-system-arm", "qemu-system-x86", "qemu-efi-aarch64", "seabios", "ipxe-qemu", "qemu-utils",
                     "qemu-user")


def image_packages(arch: Arch, kernel: Kernel) -> tuple[str, ...]:
    """Return the packages of an image in apt's notation; only the kernel may come from another suite."""
    kernel_packages = tuple(f"{name}-{arch.name}/{kernel.suite}" for name in ("linux-image", "linux-headers"))
    return USERLAND + arch.packages + kernel_packages


def image_key(arch: Arch, kernel: Kernel, public_key: str) -> str:
    """Hash everything that decides what is in an image."""
    assets = [path.relative_to(ASSETS).as_posix().encode() + b"\0" + path.read_bytes()
              for path in sorted(ASSETS.rglob("*")) if path.is_file()]
    return digest(SUITE, DISK_SIZE, *image_packages(arch, kernel), *INSTALL_OPTIONS, *FOREIGN_OPTIONS, public_key,
                  *assets)


def emulator_key() -> str:
    """Hash everything that decides what is in the emulator's directory."""
    return digest(BACKPORTS, *EMULATOR_PACKAGES)
