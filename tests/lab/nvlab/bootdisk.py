# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Disks that firmware boots: a GPT, an EFI system partition, and the image's root with a boot loader of Debian's.

The loader is installed by its own tools, on the machine itself: the image is booted once with QEMU's direct boot, from
the partition that it then keeps.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from . import placeholder
from .argv import INSTALL_ARGUMENTS, emulation_arguments, install_argv
from .cache import Cache, digest
from .emulator import Emulator
from .errors import LabError
from .image import Image
from .kvm import choose_accel
from .placeholder import Run
from .processes import BUILD_MARK, ProcessId, end, launch
from .recipe import BOOT_ASSETS, Arch, Kernel, Loader
from .ssh import Login, free_port
from .steps import progress, step

MIB = 1 << 20
ESP_AT, ESP_SIZE = MIB, 512 * MIB
ROOT_AT = ESP_AT + ESP_SIZE
ARCHIVE = "/boot/nvgrace-lab-acpi.cpio"
GRUB_TARGET = {"amd64": "x86_64-efi", "arm64": "arm64-efi"}
BOOT_TIMEOUT, INSTALL_TIMEOUT, DOWN_TIMEOUT = 600.0, 600.0, 120.0  # seconds
COPY_STEP = 8 * MIB


def entry(cache: Cache, image: Path, arch: Arch, kernel: Kernel, loader: Loader) -> Path:
    """Return where the disk is or will be; the name of an image's directory has the hash of its own inputs."""
    key = digest(image.name, (BOOT_ASSETS / "install.sh").read_bytes(), INSTALL_ARGUMENTS,
                 emulation_arguments(arch), str(ESP_SIZE), placeholder.content())
    return cache.entry(f"{prefix(arch, kernel, loader)}{key}")


def prefix(arch: Arch, kernel: Kernel, loader: Loader) -> str:
    """Return how the names of all such disks begin, whatever they were made from."""
    return f"boot-{arch.name}-{kernel.name}-{loader.name}-"


def partition_table(root_size: int) -> str:
    """Return what sfdisk is told; sizes in bytes there, sectors here."""
    sector = placeholder.SECTOR
    return "\n".join([
        "label: gpt",
        f"start={ESP_AT // sector}, size={ESP_SIZE // sector}, type=uefi, name=esp",
        f"start={ROOT_AT // sector}, size={root_size // sector}, type=linux, name=root", ""])


def copy_sparse(source: Path, target: Path, offset: int) -> None:
    """Copy a file into another at ``offset``, and of its holes nothing."""
    with source.open("rb") as reading, target.open("r+b") as writing:
        for start, stop in placeholder.data_ranges(reading.fileno()):
            reading.seek(start)
            writing.seek(offset + start)
            for position in range(start, stop, COPY_STEP):
                writing.write(reading.read(min(COPY_STEP, stop - position)))


def _partitioned(image: Image, disk: Path) -> None:
    size = image.disk.stat().st_size
    with disk.open("xb") as handle:
        # The second table is at the end.
        handle.truncate(ROOT_AT + size + MIB)
    done = subprocess.run(["/usr/sbin/sfdisk", "--quiet", str(disk)], check=False, input=partition_table(size),
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise LabError(f"sfdisk refuses the partitions of {disk}: {done.stdout.strip()}")
    copy_sparse(image.disk, disk, ROOT_AT)


def _install(login: Login, machine: ProcessId, arch: Arch, loader: Loader, log: Path) -> None:
    login.wait(BOOT_TIMEOUT, machine.alive)
    login.write(ARCHIVE, placeholder.content())
    login.write("/root/install.sh", (BOOT_ASSETS / "install.sh").read_bytes())
    command = shlex.join(["sh", "/root/install.sh", loader.name, GRUB_TARGET[arch.name],
                          emulation_arguments(arch)])
    with log.open("ab") as out:
        status = subprocess.run(login.argv([command], batch=True), check=False, stdin=subprocess.DEVNULL, stdout=out,
                                stderr=out, timeout=INSTALL_TIMEOUT).returncode
    if status != 0:
        raise LabError(f"The boot loader could not be installed (status {status}); see {log}.")
    login.run("rm /root/install.sh")
    login.power_off()
    machine.wait(DOWN_TIMEOUT)


def _build(target: Path, image: Image, emulator: Emulator, loader: Loader, key: Path, arch: Arch, log: Path) -> None:
    accel = choose_accel(arch, emulator, image)
    disk = target / "disk.raw"
    _partitioned(image, disk)
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="nvlab-", dir="/run") as run:
        console = Path(run) / "console"
        argv = install_argv(arch, emulator, accel, image.guest_kernel, image.guest_initrd, disk, console, port)
        machine = launch(argv, log, environment={**os.environ, BUILD_MARK: str(target)})
        try:
            with progress(console):
                _install(Login(port, key), machine, arch, loader, log)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"The boot loader was not installed within {INSTALL_TIMEOUT:.0f} s; see {log}.") from error
        finally:
            end([machine])
            with log.open("ab") as out:
                out.write(console.read_bytes() if console.exists() else b"")
    manifest = {"kernel_release": image.release(), "runs": [asdict(run) for run in placeholder.find(disk)]}
    (target / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def provide(cache: Cache, image: Image, arch: Arch, kernel: Kernel, loader: Loader, emulator: Emulator) -> Path:
    """Return the directory of the disk, making it when the cache has none with these inputs."""
    directory = entry(cache, image.directory, arch, kernel, loader)
    if directory.is_dir():
        return directory
    with step(f"install {loader.name} on the image"):
        return cache.provide(directory.name, lambda target: _build(
            target, image, emulator, loader, cache.key, arch, cache.new_log(directory.name)))


def runs(directory: Path) -> list[Run]:
    """Return where the archive of ACPI tables is on the disk."""
    manifest: Mapping[str, list[Mapping[str, int]]] = json.loads((directory / "manifest.json").read_text())
    return [Run(**run) for run in manifest["runs"]]


def write_archive(directory: Path, archive: bytes, overlay: Path, emulator: Emulator, scratch: Path) -> None:
    """Write the archive of ACPI tables into an overlay of the disk; ``scratch`` is a file that is gone afterwards."""
    data = placeholder.filled(archive)
    commands = []
    try:
        scratch.write_bytes(data)
        for run in runs(directory):
            part = scratch.with_suffix(f".{run.disk}")
            part.write_bytes(data[run.file:run.file + run.length])
            commands += ["-c", f"write -q -s {part} {run.disk} {run.length}"]
        subprocess.run([*emulator.command("qemu-io"), "-f", "qcow2", *commands, str(overlay)], check=True,
                       stdout=subprocess.DEVNULL)
    finally:
        for path in scratch.parent.glob(f"{scratch.name}*"):
            path.unlink()
