# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Starting, stopping and rebooting a lab."""

from __future__ import annotations

import dataclasses
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from . import acpi, aml, bootdisk, debugkernel, dsdt, efivars, gpuserver, holders, hotplug, qmp, state
from .argv import Files, qemu_argv
from .cache import LABS, Cache, remove_tree
from .emulator import Emulator, provide_emulator
from .errors import LabError, UsageError
from .image import Image, ensure_key, image_entry, provide_image
from .kvm import choose_accel
from .machine import BUILD_SPACE, RUN_SPACE, install_tools, require_root, require_space
from .processes import ProcessId, end, launch
from .products import Faults, Gpu, all_functions
from .spec import Spec
from .ssh import Login, free_port
from .state import RUNNING, STARTING, STOPPED, Lab
from .steps import last_line, progress, say, step

BOOT_TIMEOUT = 600.0  # seconds; a loaded machine without KVM takes minutes, an idle one 20 s
SERVER_TIMEOUT = 30.0
DOWN_TIMEOUT = 120.0
DISK_BYTES = 8 << 30
PACKAGE_ROOT = Path(__file__).resolve().parent.parent


def login(cache: Cache, lab: Lab) -> Login:
    """Return how to reach a lab."""
    return Login(lab.ssh_port, ensure_key(cache))


def _has_image(cache: Cache, spec: Spec) -> bool:
    # Without a key there is no image either, and asking for the image's name would make one.
    if spec.kernel.disk and not debugkernel.entry(cache).is_dir():
        return False
    if not cache.key.exists():
        return False
    image = image_entry(cache, spec.arch, spec.disk_kernel)
    return image.is_dir() and (spec.loader is None
                               or bootdisk.entry(cache, image, spec.arch, spec.kernel, spec.loader).is_dir())


def build(cache: Cache, spec: Spec) -> tuple[Emulator, Image]:
    """Provide what a lab boots from, building what is missing. Raises UsageError without root or space for it."""
    require_root()
    require_space(cache.root, RUN_SPACE if _has_image(cache, spec) else BUILD_SPACE)
    install_tools(cache.new_log("packages"))
    emulator = provide_emulator(cache)
    image = provide_image(cache, spec.arch, spec.disk_kernel, emulator)
    _remove_outdated(cache, f"image-{spec.arch.name}-{spec.disk_kernel.name}-*", image.directory)
    if spec.kernel.disk:
        image = dataclasses.replace(image, kernel_directory=debug_kernel(cache))
    if spec.loader:
        disk = bootdisk.provide(cache, image, spec.arch, spec.kernel, spec.loader, emulator)
        _remove_outdated(cache, f"{bootdisk.prefix(spec.arch, spec.kernel, spec.loader)}*", disk)
        image = dataclasses.replace(image, boot_directory=disk)
    return emulator, image


def debug_kernel(cache: Cache) -> Path:
    """Provide the debug kernel's directory, building it when it is missing."""
    require_root()
    directory = debugkernel.provide(cache)
    _remove_outdated(cache, f"{debugkernel.PREFIX}*", directory)
    return directory


def _remove_outdated(cache: Cache, pattern: str, current: Path) -> None:
    """Remove entries of the same kind that other inputs made, unless a lab runs from one."""
    with cache.lock(LABS):
        keep = {current, *state.images_in_use(cache)}
        for old in cache.root.glob(pattern):
            if old not in keep:
                say(f"    removing {old.name}, made from other inputs")
                remove_tree(old)


def _readiness(faults: Faults) -> str:
    if faults.c2c_down:
        return "not-ready"
    return "ready" if faults.ready_after is None else f"ready-after {faults.ready_after:g}"


def _start_gpu(spec: Spec, gpu: Gpu, files: Files) -> ProcessId:
    argv = [sys.executable, "-m", "nvlab.gpuserver", "--socket", str(files.gpu_socket(gpu)),
            "--control", str(files.gpu_control(gpu)), "--log", str(files.gpu_log(gpu)),
            "--product", gpu.product.name, "--index", str(gpu.index),
            "--readiness", _readiness(spec.gpu_faults[gpu.index]),
            *(["--small-bar0"] if spec.gpu_faults[gpu.index].small_bar0 else [])]
    files.gpu_socket(gpu).unlink(missing_ok=True)
    files.gpu_control(gpu).unlink(missing_ok=True)
    process = launch(argv, files.gpu_log(gpu), PACKAGE_ROOT)
    deadline = time.monotonic() + SERVER_TIMEOUT
    while not files.gpu_socket(gpu).exists():
        if not process.alive() or time.monotonic() > deadline:
            end([process])
            raise LabError(f"The server of GPU {gpu.index} did not start: {last_line(files.gpu_log(gpu))}")
        time.sleep(0.05)
    return process


def _free_port(cache: Cache) -> int:
    taken = {lab.ssh_port for lab in state.load_all(cache) if lab.state() in (STARTING, RUNNING)}
    while True:
        port = free_port()
        if port not in taken:
            return port


def _make_disk(image: Image, emulator: Emulator, files: Files) -> None:
    subprocess.run([*emulator.command("qemu-img"), "create", "-q", "-f", "qcow2", "-b", str(image.disk), "-F", "raw",
                    str(files.disk)], check=True)


def _read_dsdt(lab: Lab, emulator: Emulator) -> bytes:
    """Return the DSDT of a machine like the lab's: the same but for what is on its disk, which is not to be booted."""
    files = dataclasses.replace(lab.files, directory=lab.files.run / "no-system")
    files.directory.mkdir()
    try:
        subprocess.run([*emulator.command("qemu-img"), "create", "-q", "-f", "qcow2", str(files.disk),
                        str(DISK_BYTES)], check=True)
        if lab.spec.loader:
            files.variables.write_bytes(emulator.new_variables(lab.spec.arch.name, lab.spec.secure_boot))
        argv = qemu_argv(lab.spec, files, emulator, None, lab.ssh_port, lab.accel)
        return dsdt.read_dsdt(argv, files.qmp, lab.files.qemu_log, files.run / "memory")
    finally:
        shutil.rmtree(files.directory)


def _acpi_archive(lab: Lab, emulator: Emulator) -> bytes:
    """Return the archive of the tables that a real host's firmware has; empty when there is nothing for it to tell."""
    memory = [(gpu, lab.spec.firmware_memory(gpu)) for gpu in lab.spec.gpus]
    if lab.spec.secure_boot or not any(gpu.product.memory for gpu in lab.spec.gpus):
        return b""
    tables = {"ssdt-gpu": acpi.ssdt(memory)}
    if lab.spec.arch.name == "amd64":
        tables["dsdt"] = aml.with_64_bit_integers(_read_dsdt(lab, emulator))
    return acpi.early_archive(tables)


def _make_variables(lab: Lab, emulator: Emulator, certificates: Sequence[bytes]) -> None:
    store = emulator.new_variables(lab.spec.arch.name, lab.spec.secure_boot)
    lab.files.variables.write_bytes(efivars.with_machine_owner_keys(store, certificates) if certificates else store)


def _reserve(cache: Cache, spec: Spec, image: Image, accel: str) -> Lab:
    """Take the name: write the state file, with no process in it yet."""
    directory = state.lab_directory(cache, spec.name)
    with cache.lock(LABS):
        old = state.load(cache, spec.name)
        if old is not None and old.state() in (STARTING, RUNNING):
            raise UsageError(f"The lab {spec.name!r} is {old.state()} already; stop it first or choose another name.")
        if old is not None:
            end(list(old.processes.values()))
            shutil.rmtree(old.files.run, ignore_errors=True)
        if directory.exists():
            remove_tree(directory)
        directory.mkdir(parents=True)
        files = Files(directory, Path(tempfile.mkdtemp(prefix="nvlab-", dir="/run")))
        lab = Lab(spec, files, STARTING, _free_port(cache), accel, image.directory, {},
                  kernel=image.kernel_directory, boot=image.boot_directory)
        state.save(lab)
    return lab


def _start_gpus(lab: Lab) -> Lab:
    """Start the GPUs' processes, noting each one before the next: an interrupt leaves none unknown."""
    lab = dataclasses.replace(lab, processes={})
    for function in all_functions(lab.spec.gpus):
        process = _start_gpu(lab.spec, function, lab.files)
        lab = dataclasses.replace(lab, processes={**lab.processes, function.name: process})
        state.save(lab)
    return lab


def _start_qemu(lab: Lab, image: Image, emulator: Emulator, snapshot: str | None = None) -> Lab:
    kernel = None if lab.spec.loader else image.kernel
    argv = qemu_argv(lab.spec, lab.files, emulator, kernel, lab.ssh_port, lab.accel, snapshot)
    process = launch(argv, lab.files.qemu_log)
    lab = dataclasses.replace(lab, processes={**lab.processes, "qemu": process})
    state.save(lab)
    return lab


def _launch(lab: Lab, image: Image, emulator: Emulator, certificates: Sequence[bytes]) -> Lab:
    _make_disk(image, emulator, lab.files)
    lab = _start_gpus(lab)
    archive = _acpi_archive(lab, emulator)
    if image.boot_directory is None:
        lab.files.initrd.write_bytes(archive + image.initrd())
    else:
        bootdisk.write_archive(image.boot_directory, archive, lab.files.disk, emulator, lab.files.run / "acpi")
        _make_variables(lab, emulator, certificates)
    return _start_qemu(lab, image, emulator)


def relaunch(lab: Lab, emulator: Emulator, snapshot: str) -> Lab:
    """Start a lab's processes again, on the disk that it has, from a snapshot; its old processes have ended."""
    return _start_qemu(_start_gpus(lab), Image(lab.image, lab.kernel, lab.boot), emulator, snapshot)


def _wait_for_boot(cache: Cache, lab: Lab, old_boot: str | None = None) -> None:
    with progress(lab.files.console):
        login(cache, lab).wait(BOOT_TIMEOUT, lambda: lab.state() != state.DEAD, old_boot)


def start(cache: Cache, spec: Spec, certificates: Sequence[bytes] = ()) -> Lab:
    """Start a lab and wait until ssh answers. Raises UsageError when the name runs already.

    ``certificates`` (DER) are enrolled in a firmware with Secure Boot as the machine owner's. When the boot fails
    nothing keeps running; the logs stay.
    """
    old = state.load(cache, spec.name)
    if old is not None and old.state() in (STARTING, RUNNING):
        raise UsageError(f"The lab {spec.name!r} is {old.state()} already; stop it first or choose another name.")
    emulator, image = build(cache, spec)
    accel = choose_accel(spec.arch, emulator, image)
    lab = _reserve(cache, spec, image, accel)
    begin = time.monotonic()
    try:
        with step(f"boot {spec.name} ({spec.arch.name}, kernel {image.release()}, {spec.product.name}, {accel})"):
            lab = _launch(lab, image, emulator, certificates)
            _wait_for_boot(cache, lab)
            if spec.loader:
                # Direct boot has the name on the kernel's command line.
                login(cache, lab).run(f"echo {spec.name} > /etc/hostname; hostname {spec.name}")
            if image.modules is not None:
                login(cache, lab).upload(image.modules, "/lib/modules")
    except BaseException as error:
        current = state.load(cache, spec.name) or lab
        _shut_down(current)
        if isinstance(error, LabError):
            raise LabError(f"{error}\nconsole: {_tail(current.files.console)}\n"
                           f"qemu: {_tail(current.files.qemu_log)}") from error
        raise
    lab = dataclasses.replace(lab, phase=RUNNING, boot_seconds=round(time.monotonic() - begin, 1))
    state.save(lab)
    return lab


def _tail(path: Path) -> str:
    return last_line(path) or "(nothing)"


def _shut_down(lab: Lab) -> None:
    """End what the lab started and remove what only a running one needs; the logs stay."""
    end(list(lab.processes.values()))
    shutil.rmtree(lab.files.run, ignore_errors=True)
    for path in (lab.files.disk, lab.files.initrd, lab.files.variables):
        path.unlink(missing_ok=True)
    state.save(dataclasses.replace(lab, phase=STOPPED, processes={}, snapshot=False))


def stop(cache: Cache, name: str) -> None:
    """Stop a lab and discard its disk. Raises UsageError for an unknown name; a stopped lab stays stopped."""
    lab = state.require(cache, name)
    if lab.state() == STOPPED:
        say(f"{name} is stopped already")
        return
    with step(f"stop {name}"):
        _shut_down(lab)


def _go_down(session: Login, monitor: Path) -> str | None:
    """Make the host go down, by its own systemctl or by the reset button; return the boot id that has to change."""
    try:
        boot = session.boot_id()
        subprocess.run(session.argv(["systemctl", "reboot"], batch=True), check=False, timeout=DOWN_TIMEOUT,
                       stdin=subprocess.DEVNULL, capture_output=True)
        return boot
    except (LabError, subprocess.TimeoutExpired):
        say("    the host does not answer; resetting it")
    qmp.execute(monitor, "system_reset")
    return None


def reboot(cache: Cache, name: str, certificates: Sequence[bytes] = ()) -> None:
    """Reboot the host and wait until ssh answers on another boot. The disk and the GPUs' state survive.

    ``certificates`` (DER) are enrolled on the way, which is what the machine's owner does at its console.
    """
    lab = state.require_running(cache, name)
    if certificates and not lab.spec.secure_boot:
        raise UsageError(f"The firmware of {name!r} has no keys to add one to; start it with --secure-boot.")
    with step(f"reboot {name}"):
        if certificates:
            _enrol(cache, lab, certificates)
        else:
            _wait_for_boot(cache, lab, _go_down(login(cache, lab), lab.files.qmp))


def reset(cache: Cache, name: str) -> None:
    """Take the host's power and give it back at once: nothing is synced and nobody is told. Does not wait."""
    qmp.execute(state.require_running(cache, name).files.qmp, "system_reset")


def _enrol(cache: Cache, lab: Lab, certificates: Sequence[bytes]) -> None:
    # QEMU holds the variables in memory while it runs.
    login(cache, lab).power_off()
    lab.processes["qemu"].wait(DOWN_TIMEOUT)
    store = lab.files.variables.read_bytes()
    lab.files.variables.write_bytes(efivars.with_machine_owner_keys(store, certificates))
    lab = _start_qemu(lab, Image(lab.image, lab.kernel, lab.boot), provide_emulator(cache))
    _wait_for_boot(cache, lab)


def wait(cache: Cache, name: str, seconds: float) -> None:
    """Wait until a login works, for a lab that reboots on its own."""
    if not math.isfinite(seconds) or seconds <= 0:
        raise UsageError(f"A wait takes a positive number of seconds, not {seconds}.")
    lab = state.require_running(cache, name)
    login(cache, lab).wait(seconds, lambda: lab.state() != state.DEAD)


def _running_gpu(cache: Cache, name: str, index: int) -> tuple[Lab, Gpu]:
    lab = state.require_running(cache, name)
    if not 0 <= index < len(lab.spec.gpus):
        raise UsageError(f"The lab {name!r} has GPUs 0 to {len(lab.spec.gpus) - 1}, not {index}.")
    return lab, lab.spec.gpus[index]


def tell_gpu(cache: Cache, name: str, index: int, request: str) -> dict[str, object]:
    """Carry out a request for a GPU. Raises UsageError for a GPU that the lab does not have."""
    lab, gpu = _running_gpu(cache, name, index)
    if request in hotplug.REQUESTS:
        hotplug.carry_out(lab, gpu, request)
        request = "state"
    answers = [gpuserver.ask(lab.files.gpu_control(function), request)
               for function in (all_functions([gpu]) if request in gpuserver.WHOLE_CARD else [gpu])]
    return {**answers[0], "plugged": hotplug.plugged(lab, gpu)}


def hold_gpu(cache: Cache, name: str, index: int, kind: str) -> dict[str, object]:
    """Start a process on the host that has a GPU in use. Returns its pid and the device node."""
    lab, gpu = _running_gpu(cache, name, index)
    return holders.hold(login(cache, lab), gpu, kind)


def let_go_of_gpu(cache: Cache, name: str, index: int) -> None:
    """End the processes that hold_gpu started for a GPU."""
    lab, gpu = _running_gpu(cache, name, index)
    holders.let_go(login(cache, lab), gpu)
