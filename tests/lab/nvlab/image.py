# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Images: a Debian root file system as a raw ext4 disk, with its kernel and initrd beside it for direct boot."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import cpio
from .cache import Cache, remove_tree
from .emulator import Emulator
from .errors import LabError
from .machine import debian_arch, debian_mirror
from .processes import BUILD_MARK
from .recipe import (
    ASSETS,
    DISK_SIZE,
    FOREIGN_OPTIONS,
    INSTALL_OPTIONS,
    SUITE,
    Arch,
    Kernel,
    image_key,
    image_packages,
    shelf_options,
    suite_options,
)
from .steps import run_logged, step

MACHINE_LOCK = Path("/run/lock/nvgrace-lab")
BINFMT = Path("/proc/sys/fs/binfmt_misc")
# mmdebstrap looks for a registration of this name and asks for a static emulator in the chroot when there is none.
BINFMT_ENTRY = BINFMT / "qemu-aarch64"
# ELF, 64 bit, little endian, machine 183 (AArch64), executable or shared object: the row of QEMU's qemu-binfmt-conf.sh.
AARCH64_MAGIC = bytes.fromhex("7f454c460201010000000000000000000200b700")
AARCH64_MASK = bytes.fromhex("ffffffffffffff00fffffffffffffffffeffffff")
TINY_ARCHIVE = "usr/share/nvgrace-lab/tiny.cpio.gz"


@dataclass(frozen=True)
class Image:
    """A finished image: what QEMU boots. ``kernel_directory`` has a kernel that takes the place of the image's own.

    ``boot_directory`` has a disk that was made from the image's own and that firmware boots.
    """

    directory: Path
    kernel_directory: Path | None = None
    boot_directory: Path | None = None

    @property
    def disk(self) -> Path:
        """Return the raw disk; labs write to overlays of it, never to it."""
        return (self.boot_directory or self.directory) / "disk.raw"

    @property
    def kernel(self) -> Path:
        """Return the kernel; the disk holds it, too, unless it was built here."""
        return (self.kernel_directory or self.directory) / "vmlinuz"

    @property
    def guest_kernel(self) -> Path:
        """Return the kernel that the disk holds, and that nested guests boot."""
        return self.directory / "vmlinuz"

    @property
    def guest_initrd(self) -> Path:
        """Return the initrd of that kernel; the disk holds it, too."""
        return self.directory / "initrd.img"

    def initrd(self) -> bytes:
        """Return the initrd for direct boot; a kernel that was built here needs none."""
        return b"" if self.kernel_directory else self.guest_initrd.read_bytes()

    @property
    def modules(self) -> Path | None:
        """Return what belongs into /lib/modules and is not on the disk."""
        return self.kernel_directory / "modules" if self.kernel_directory else None

    @property
    def tiny(self) -> Path:
        """Return the initramfs of the tiny guest, for the probe of this machine's KVM."""
        return self.directory / "tiny.cpio.gz"

    def release(self) -> str:
        """Return the kernel's release, such as 7.3.4+deb13-arm64."""
        manifest = (self.kernel_directory or self.directory) / "manifest.json"
        return str(json.loads(manifest.read_text())["kernel_release"])


def ensure_key(cache: Cache) -> Path:
    """Return the private key of this cache's labs, made at the first use."""
    key = cache.key
    if not key.exists():
        cache.root.mkdir(parents=True, exist_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "nvgrace-lab", "-f", str(key)], check=True)
    return key


def public_key(cache: Cache) -> str:
    """Return the public key that every image admits."""
    return ensure_key(cache).with_suffix(".pub").read_text().strip()


def image_entry(cache: Cache, arch: Arch, kernel: Kernel) -> Path:
    """Return where the image is or will be."""
    return cache.entry(f"image-{arch.name}-{kernel.name}-{image_key(arch, kernel, public_key(cache))}")


@contextlib.contextmanager
def one_build_on_this_machine() -> Iterator[None]:
    """Wait for builds in other caches: the registration that one makes and takes back is the whole machine's."""
    with MACHINE_LOCK.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _binfmt_escape(data: bytes) -> bytes:
    return b"".join(b"\\x%02x" % byte for byte in data)


def unregister_emulation(cache_root: Path) -> None:
    """Take back the registration of an interrupted build: one whose interpreter lies in this cache."""
    if BINFMT_ENTRY.exists() and f"interpreter {cache_root}/" in BINFMT_ENTRY.read_text():
        BINFMT_ENTRY.write_text("-1")


@contextlib.contextmanager
def foreign_programs(arch: Arch, emulator: Emulator) -> Iterator[dict[str, str]]:
    """Make programs of ``arch`` run on this machine for the duration of the block; yields the environment they want.

    An emulation that the machine already has is used as it is. Else the emulator's own is registered with the F flag:
    the kernel keeps it open, so that it works inside a chroot that does not contain it.
    """
    # qemu-user before 9 computes pointer authentication with the real cipher: five times slower than everything else.
    environment = {"QEMU_CPU": "max,pauth-impdef=on"}
    if arch.name == debian_arch():
        yield {}
        return
    if subprocess.run(["arch-test", arch.name], check=False, capture_output=True).returncode == 0:
        yield environment
        return
    if arch.name != "arm64" or not emulator.user_aarch64.exists():
        raise LabError(f"This machine cannot run {arch.name} programs; install qemu-user-static and binfmt-support.")
    if not (BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)], check=True)
    if BINFMT_ENTRY.exists():
        raise LabError(f"{BINFMT_ENTRY} exists and does not run arm64 programs; enable it (update-binfmts --enable "
                       "qemu-aarch64) or remove it.")
    rule = b":%s:M::%s:%s:%s:PF" % (BINFMT_ENTRY.name.encode(), _binfmt_escape(AARCH64_MAGIC),
                                    _binfmt_escape(AARCH64_MASK), str(emulator.user_aarch64).encode())
    (BINFMT / "register").write_bytes(rule)
    try:
        yield environment
    finally:
        BINFMT_ENTRY.write_text("-1")


def _install_root(root: Path, arch: Arch, kernel: Kernel, key: str, environment: dict[str, str], log: Path) -> None:
    mirror = debian_mirror()
    options = shelf_options(arch, kernel) + INSTALL_OPTIONS + (() if arch.name == debian_arch() else FOREIGN_OPTIONS)
    run_logged(
        ["mmdebstrap", "--verbose", *(option.replace("{assets}", str(ASSETS)) for option in options),
         *suite_options(kernel), f"--architectures={arch.name}", f"--include={','.join(image_packages(arch, kernel))}",
         SUITE, str(root), *([mirror] if mirror else [])],
        log, {**environment, "PUBLIC_KEY": key, BUILD_MARK: str(root.parent)},
    )


def _kernel_release(root: Path, kernel: Kernel) -> str:
    releases = sorted(path.name for path in (root / "lib/modules").iterdir())
    if len(releases) != 1 or not releases[0].startswith(f"{kernel.name}."):
        raise LabError(f"{kernel.suite} now carries kernel {', '.join(releases) or 'none'}, not {kernel.name}; "
                       "update KERNELS in tests/lab/nvlab/recipe.py.")
    return releases[0]


def tiny_initramfs(busybox: bytes) -> bytes:
    """Return the compressed initramfs of the tiny guest: a static busybox and our init."""
    init = (ASSETS / "tiny-init").read_bytes()
    members = {"init": cpio.Member(init, 0o755), "bin/busybox": cpio.Member(busybox, 0o755)}
    # mtime 0: the same input gives the same bytes
    return gzip.compress(cpio.archive(members, ("dev", "proc", "sys")), compresslevel=6, mtime=0)


def _make_disk(root: Path, disk: Path, log: Path) -> None:
    run_logged(["truncate", "-s", DISK_SIZE, str(disk)], log)
    run_logged(["/usr/sbin/mkfs.ext4", "-q", "-F", "-L", "nvgrace-lab", "-d", str(root), str(disk)], log)


def build_image(target: Path, arch: Arch, kernel: Kernel, emulator: Emulator, key: str, log: Path) -> None:
    """Build an image into ``target``, an empty directory. Raises LabError with the tail of the log on failure."""
    root = target / "root"
    with step(f"install Debian {SUITE} {arch.name} with kernel {kernel.name}"), \
            foreign_programs(arch, emulator) as environment:
        _install_root(root, arch, kernel, key, environment, log)
    release = _kernel_release(root, kernel)
    with step("make the tiny guest and the disk"):
        tiny = tiny_initramfs((root / "usr/bin/busybox").read_bytes())
        (root / TINY_ARCHIVE).parent.mkdir(parents=True, exist_ok=True)
        (root / TINY_ARCHIVE).write_bytes(tiny)
        (target / "tiny.cpio.gz").write_bytes(tiny)
        shutil.copy(root / "boot" / f"vmlinuz-{release}", target / "vmlinuz")
        shutil.copy(root / "boot" / f"initrd.img-{release}", target / "initrd.img")
        _make_disk(root, target / "disk.raw", log)
        remove_tree(root)
    manifest = {"arch": arch.name, "kernel": kernel.name, "kernel_release": release}
    (target / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def provide_image(cache: Cache, arch: Arch, kernel: Kernel, emulator: Emulator) -> Image:
    """Return the image, building it when the cache has none with these inputs."""
    key = public_key(cache)
    entry = image_entry(cache, arch, kernel)

    def build(target: Path) -> None:
        with one_build_on_this_machine():
            unregister_emulation(cache.root)
            build_image(target, arch, kernel, emulator, key, cache.new_log(entry.name))

    return Image(cache.provide(entry.name, build))
