# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""QEMU's command line for a lab: a pure function of the request and of where the files are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .emulator import Emulator
from .products import (
    FIRST_MEMORY_BASE,
    FIRST_SLOT,
    GIB,
    HOST_RAM,
    MEMORY_STRIDE,
    MIB,
    Gpu,
    all_functions,
    node_distance,
)
from .recipe import Arch
from .spec import Spec

CPUS = 2
TCG = "tcg"
KVM = "kvm"
INSTALL_RAM = 2 * GIB
# With gpt_auto systemd would mount the EFI system partition at a place of its own choice.
INSTALL_ARGUMENTS = "root=/dev/vda2 rw quiet systemd.gpt_auto=no"


@dataclass(frozen=True)
class Files:
    """Where a running lab has its files. Sockets live in ``run``, which has a short path: a socket's has 107 bytes."""

    directory: Path
    run: Path

    @property
    def disk(self) -> Path:
        """Return the overlay that takes the host's writes."""
        return self.directory / "disk.qcow2"

    @property
    def initrd(self) -> Path:
        """Return the initrd with the ACPI tables before it."""
        return self.directory / "initrd.img"

    @property
    def variables(self) -> Path:
        """Return the flash that has the firmware's variables."""
        return self.directory / "efivars.fd"

    @property
    def console(self) -> Path:
        """Return the log of the serial console."""
        return self.directory / "console.log"

    @property
    def qemu_log(self) -> Path:
        """Return QEMU's own messages."""
        return self.directory / "qemu.log"

    @property
    def qmp(self) -> Path:
        """Return QEMU's monitor socket."""
        return self.run / "qmp"

    def gpu_socket(self, gpu: Gpu) -> Path:
        """Return the vfio-user socket of a function."""
        return self.run / gpu.name

    def gpu_control(self, gpu: Gpu) -> Path:
        """Return the control socket of a function."""
        return self.run / f"{gpu.name}.control"

    def gpu_log(self, gpu: Gpu) -> Path:
        """Return the log of a function's registers."""
        return self.directory / f"{gpu.name}.log"


def _flash(firmware: Path, variables: Path | None = None) -> list[str]:
    words = ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={firmware}"]
    return words if variables is None else [*words, "-drive", f"if=pflash,unit=1,format=raw,file={variables}"]


def _machine(arch: Arch, accel: str, secure: bool = False) -> list[str]:
    if arch.name == "arm64":
        # virtualization=on gives the host its own EL2 and so its own /dev/kvm. pauth=off because computing pointer
        # authentication in software takes a quarter of the boot.
        machine = "virt,virtualization=on,gic-version=3,nvdimm=on"
        cpu = "host" if accel == KVM else "max,pauth=off"
    else:
        machine = "q35,nvdimm=on" + (",kernel-irqchip=split" if accel == KVM else "") + (",smm=on" if secure else "")
        cpu = "host" if accel == KVM else "max"
    engine = KVM if accel == KVM else "tcg,thread=multi,tb-size=1024"
    return ["-machine", machine, "-cpu", cpu, "-accel", engine, "-smp", str(CPUS)]


def _firmware(spec: Spec, files: Files, emulator: Emulator) -> list[str]:
    if spec.loader is None:
        return _flash(emulator.arm_firmware) if spec.arch.name == "arm64" else []
    words = _flash(emulator.firmware(spec.arch.name, spec.secure_boot), files.variables)
    if spec.arch.name == "amd64" and spec.secure_boot:
        # The variables are changed by the firmware in system management mode only, as its build demands.
        words += ["-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1"]
    return words


def _memory(gpus: Sequence[Gpu]) -> list[str]:
    slots = len(gpus) + 1
    top = FIRST_MEMORY_BASE + slots * MEMORY_STRIDE
    words = ["-m", f"{HOST_RAM >> 20}M,slots={slots},maxmem={top // GIB}G",
             "-object", f"memory-backend-ram,id=ram0,size={HOST_RAM >> 20}M",
             "-numa", f"node,nodeid=0,memdev=ram0,cpus=0-{CPUS - 1}"]
    for gpu in gpus:
        if not gpu.product.memory:
            continue
        words += ["-object", f"memory-backend-ram,id=gpumem{gpu.index},size={gpu.product.memory >> 20}M",
                  "-device", f"nvdimm,memdev=gpumem{gpu.index},id=nvdimm{gpu.index},addr={gpu.memory_base:#x}"]
    return words


def _topology(gpus: Sequence[Gpu]) -> list[str]:
    words: list[str] = []
    for gpu in gpus:
        for node in gpu.nodes:
            words += ["-numa", f"node,nodeid={node}",
                      "-object", f"acpi-generic-initiator,id=gi{node},pci-dev=gpu{gpu.index},node={node}"]
    nodes = [0, *(node for gpu in gpus for node in gpu.nodes)]
    for one in nodes:
        for other in nodes:
            if one < other:
                words += ["-numa", f"dist,src={one},dst={other},val={node_distance(gpus, one, other)}"]
    return words


def port_name(gpu: Gpu) -> str:
    """Return QEMU's name of the root port that a GPU is behind."""
    return f"port{gpu.port}"


def function_device(spec: Spec, gpu: Gpu, files: Files) -> dict[str, object]:
    """Return what QEMU is told of a function, on its command line or by its monitor."""
    several = spec.faults.shared_group or spec.product.companion is not None
    device: dict[str, object] = {"driver": "vfio-user-pci", "id": gpu.name, "addr": f"{gpu.slot:02x}.{gpu.function}",
                                 "multifunction": several,
                                 "socket": {"type": "unix", "path": str(files.gpu_socket(gpu))}}
    return device if gpu.port is None else {**device, "bus": port_name(gpu)}


def _ports(spec: Spec) -> list[str]:
    words = []
    for gpu in spec.gpus:
        if gpu.port is not None:
            port = {"driver": "pcie-root-port", "id": port_name(gpu), "bus": "pcie.0", "chassis": 1 + gpu.port,
                    "slot": 1 + gpu.port, "addr": f"{FIRST_SLOT + gpu.port:02x}.0"}
            words += ["-device", json.dumps(port)]
    # The kernel's own hotplug, as of a server's slots, and not that by ACPI, which is QEMU's.
    return ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off", *words] if words else []


def _functions(spec: Spec, files: Files) -> list[str]:
    words = _ports(spec)
    for function in all_functions(spec.gpus):
        words += ["-device", json.dumps(function_device(spec, function, files))]
    if spec.faults.no_iommu:
        return words
    if spec.arch.name == "arm64":
        # After the GPUs: QEMU refuses a vfio-user function behind an SMMUv3 that is there already (it lacks the MAP
        # notifier), and the host's kernel sees the same either way. QEMU does not translate the function's DMA then;
        # it does none.
        return [*words, "-device", json.dumps({"driver": "arm-smmuv3", "primary-bus": "pcie.0", "id": "smmu0"})]
    return ["-device", "intel-iommu,intremap=on,caching-mode=on", *words]


def emulation_arguments(arch: Arch) -> str:
    """Return the kernel arguments that an emulated host wants however it boots."""
    words = [f"console={arch.console}", "systemd.show_status=0"]
    if arch.name == "amd64":
        # On a busy machine the kernel may wait in vain for the interrupt by which it tests the timer, and panic.
        words += ["mitigations=off", "no_timer_check"]
    return " ".join(words)


def _kernel_arguments(spec: Spec) -> str:
    words = ["root=/dev/vda", "rw", "quiet", emulation_arguments(spec.arch), f"systemd.hostname={spec.name}"]
    if spec.arch.name == "arm64" and spec.snapshots:
        # QEMU saves the timers of EL1 and none of EL2's. A kernel that finds VHE stays in EL2 and, brought back, waits
        # for ever for the next tick of a processor that was idle.
        words += ["kvm-arm.mode=nvhe"]
    if spec.arch.name == "amd64" and not spec.faults.no_iommu:
        words += ["intel_iommu=on"]
    return " ".join([*words, *spec.kernel.arguments])


def _direct_boot(kernel: Path, initrd: Path, arguments: str) -> list[str]:
    return ["-kernel", str(kernel), "-initrd", str(initrd), "-append", arguments]


def _emulator(arch: Arch, emulator: Emulator, name: str) -> list[str]:
    return [*emulator.command(f"qemu-system-{arch.qemu}"), *emulator.data_options(),
            "-name", name, "-nodefaults", "-no-user-config", "-display", "none"]


def _devices(console: Path, disk: Path, disk_format: str, ssh_port: int) -> list[str]:
    return [
        # What a kernel said before it crashed stays there when the host is brought back.
        "-chardev", f"file,id=console,path={console},append=on", "-serial", "chardev:console",
        # A lab is thrown away: nothing on its disk has to survive a crash of this machine.
        "-drive", f"if=none,id=disk0,format={disk_format},cache=unsafe,file={disk}",
        "-device", "virtio-blk-pci,drive=disk0",
        "-netdev", f"user,id=net0,hostfwd=tcp:127.0.0.1:{ssh_port}-:22",
        "-device", "virtio-net-pci,netdev=net0,romfile=",
        "-object", "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng0",
    ]


def install_argv(arch: Arch, emulator: Emulator, accel: str, kernel: Path, initrd: Path, disk: Path, console: Path,
                 ssh_port: int) -> list[str]:
    """Return the argv of QEMU for the one boot in which a disk gets its boot loader; the root is its partition 2."""
    return [
        *_emulator(arch, emulator, "nvgrace-lab-install"), *_machine(arch, accel),
        *(_flash(emulator.arm_firmware) if arch.name == "arm64" else []), "-m", f"{INSTALL_RAM // MIB}M",
        *_direct_boot(kernel, initrd, f"{INSTALL_ARGUMENTS} {emulation_arguments(arch)}"),
        *_devices(console, disk, "raw", ssh_port),
    ]


def qemu_argv(spec: Spec, files: Files, emulator: Emulator, kernel: Path | None, ssh_port: int,
              accel: str, snapshot: str | None = None) -> list[str]:
    """Return the argv of QEMU; without a kernel the firmware boots from the disk, if there is something to boot.

    With a snapshot QEMU goes on from that instead; everything else must be as it was when the snapshot was taken.
    Only loopback is reachable from outside, on ``ssh_port``.
    """
    boot = [] if kernel is None else _direct_boot(kernel, files.initrd, _kernel_arguments(spec))
    return [
        *_emulator(spec.arch, emulator, spec.name), *_machine(spec.arch, accel, spec.secure_boot),
        *_firmware(spec, files, emulator), *_memory(spec.gpus),
        *boot, *(["-loadvm", snapshot] if snapshot else []),
        "-qmp", f"unix:{files.qmp},server=on,wait=off",
        *_devices(files.console, files.disk, "qcow2", ssh_port),
        *_functions(spec, files), *_topology(spec.gpus),
    ]
