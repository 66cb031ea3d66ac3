# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""What an image and an emulator consist of: data only, and the data is what the cache keys are made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .cache import digest

SUITE = "trixie"
BACKPORTS = f"{SUITE}-backports"
OWN_SUITES = (SUITE, BACKPORTS)
DISK_SIZE = "8G"
ASSETS = Path(__file__).resolve().parent.parent / "image"
KERNEL_ASSETS = ASSETS.parent / "kernels"
BOOT_ASSETS = ASSETS.parent / "boot"

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
UNREAD_PATHS = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
# The kernel is Debian's, without drivers of devices and file systems that no host of the lab has: depmod, which runs at
# each build, hand-out and removal of a module, reads every module that there is, and emulated that took a minute.
UNUSED_MODULES = (
    "drivers/ata", "drivers/bluetooth", "drivers/clk", "drivers/gpu/drm/amd", "drivers/gpu/drm/bridge",
    "drivers/gpu/drm/gma500", "drivers/gpu/drm/i915", "drivers/gpu/drm/msm", "drivers/gpu/drm/panel",
    "drivers/gpu/drm/radeon", "drivers/gpu/drm/xe", "drivers/hid", "drivers/hwmon", "drivers/iio",
    "drivers/infiniband", "drivers/input/joystick", "drivers/input/misc", "drivers/input/tablet",
    "drivers/input/touchscreen", "drivers/md", "drivers/media/dvb-frontends", "drivers/media/i2c",
    "drivers/media/pci", "drivers/media/platform", "drivers/media/tuners", "drivers/media/usb", "drivers/mmc",
    "drivers/mtd", "drivers/net/can", "drivers/net/ethernet", "drivers/net/phy", "drivers/net/usb",
    "drivers/net/wireless", "drivers/scsi", "drivers/staging", "drivers/target", "drivers/usb/gadget",
    "drivers/usb/misc", "drivers/usb/serial", "drivers/usb/storage", "fs/btrfs", "fs/f2fs", "fs/gfs2", "fs/nfs",
    "fs/nfsd", "fs/ocfs2", "fs/smb", "fs/xfs", "net/bluetooth", "net/mac80211", "net/wireless", "sound/soc",
    "sound/usb",
)
# Headers of architectures that neither build needs; arm64's include some of arm's.
UNUSED_ARCHES = (
    "alpha", "arc", "csky", "hexagon", "loongarch", "m68k", "microblaze", "mips", "nios2", "openrisc", "parisc",
    "powerpc", "riscv", "s390", "sh", "sparc", "xtensa",
)
EXCLUDED_PATHS = (
    *UNREAD_PATHS,
    # from bookworm's kernels /lib, from newer ones /usr/lib
    *(f"*/lib/modules/*/kernel/{directory}/*" for directory in UNUSED_MODULES),
    *(f"/usr/src/linux-headers-*/arch/{name}/*" for name in UNUSED_ARCHES),
)
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
class Loader:
    """A boot loader that the firmware starts: the packages that it consists of, {arch} being Debian's name."""

    name: str
    packages: tuple[str, ...]
    # Whether it is signed so that a Secure Boot firmware with Microsoft's keys starts it.
    signed: bool


@dataclass(frozen=True)
class Kernel:
    """A kernel that a lab can run: its name, which Debian's releases begin with, and the suite that carries it."""

    name: str
    suite: str
    # Headers want the compiler of the kernel's suite. Where that is not the image's, modules come built from elsewhere.
    headers: bool = True
    # Not Debian's, but built here: the kernel whose image has the disk, and the architecture that it is built for.
    disk: str | None = None
    # The kernel whose packages lie on the image's shelf, to be installed in the host.
    second: str | None = None
    only_arch: str | None = None
    kvm: bool = True
    arguments: tuple[str, ...] = ()

    @property
    def release(self) -> str:
        """Return a regular expression for the whole of the kernel's release."""
        name = self.disk or self.name
        return re.escape(name) + r"\..*" + ("-nvgrace-debug" if self.disk else "")


ARCHES = {
    "arm64": Arch("arm64", "aarch64", ("qemu-system-arm", "qemu-efi-aarch64"), "ttyAMA0"),
    "amd64": Arch("amd64", "x86_64", ("qemu-system-x86", "ovmf"), "ttyS0"),
}
KERNELS = {
    "7.3": Kernel("7.3", BACKPORTS, second="6.12"),
    "6.12": Kernel("6.12", SUITE, second="7.3"),
    "7.2": Kernel("7.2", "forky", headers=False),
    "6.1": Kernel("6.1", "bookworm", headers=False),
    # Reports go on after the first one, and leaks are looked for.
    "debug": Kernel("debug", BACKPORTS, disk="7.3", only_arch="amd64", kvm=False,
                    arguments=("kasan_multi_shot", "kmemleak=on", "log_buf_len=16M")),
}
EFI_TOOLS = ("dosfstools", "efibootmgr", "mokutil")
LOADERS = {loader.name: loader for loader in (
    Loader("grub", ("grub-efi-{arch}", "grub-efi-{arch}-signed", "shim-signed", *EFI_TOOLS), signed=True),
    Loader("systemd-boot", ("systemd-boot", *EFI_TOOLS), signed=False),
)}
EMULATOR_PACKAGES = ("qemu-system-arm", "qemu-system-x86", "qemu-efi-aarch64", "ovmf", "seabios", "ipxe-qemu",
                     "qemu-utils", "qemu-user")


def image_packages(arch: Arch, kernel: Kernel) -> tuple[str, ...]:
    """Return the packages of an image in apt's notation; only the kernel may come from another suite."""
    names = ("linux-image", "linux-headers") if kernel.headers else ("linux-image",)
    suffix = f"/{kernel.suite}" if kernel.suite in OWN_SUITES else ""  # kernels/suite.sh pins the others
    return USERLAND + arch.packages + tuple(f"{name}-{arch.name}{suffix}" for name in names)


def shelves(arch: Arch, kernel: Kernel) -> dict[str, tuple[str, ...]]:
    """Return what lies in an image without being installed: the name of a shelf -> packages in apt's notation."""
    if kernel.second is None:
        return {}
    suite = KERNELS[kernel.second].suite
    loaders = {loader.name: tuple(package.format(arch=arch.name) for package in loader.packages)
               for loader in LOADERS.values()}
    return {**loaders, "kernel": tuple(f"linux-{part}-{arch.name}/{suite}" for part in ("image", "headers"))}


def shelf_options(arch: Arch, kernel: Kernel) -> tuple[str, ...]:
    """Return mmdebstrap's options that fill the shelves."""
    return tuple(f'--customize-hook={ASSETS / "stock.sh"} "$1" {name} {" ".join(packages)}'
                 for name, packages in shelves(arch, kernel).items())


def suite_options(kernel: Kernel) -> tuple[str, ...]:
    """Return mmdebstrap's options that make the kernel's suite known where the image does not have it anyway."""
    if kernel.suite in OWN_SUITES:
        return ()
    return (f'--setup-hook=SUITE={SUITE} {KERNEL_ASSETS / "suite.sh"} {kernel.suite} "$1"',)


def image_key(arch: Arch, kernel: Kernel, public_key: str) -> str:
    """Hash everything that decides what is in an image."""
    assets: list[bytes | str] = [path.relative_to(ASSETS).as_posix().encode() + b"\0" + path.read_bytes()
                                 for path in sorted(ASSETS.rglob("*")) if path.is_file()]
    inputs = [SUITE, DISK_SIZE, *image_packages(arch, kernel), *INSTALL_OPTIONS, *FOREIGN_OPTIONS, public_key, *assets]
    inputs += [f"{name}: {' '.join(packages)}" for name, packages in shelves(arch, kernel).items()]
    if suite_options(kernel):
        inputs += [kernel.suite, (KERNEL_ASSETS / "suite.sh").read_bytes()]
    return digest(*inputs)


def emulator_key() -> str:
    """Hash everything that decides what is in the emulator's directory."""
    return digest(BACKPORTS, *EMULATOR_PACKAGES)
