# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""QEMU's command line for a lab: a pure function of the request and of where the files are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .emulator import Emulator
from .products import FIRST_MEMORY_BASE, GIB, HOST_RAM, MEMORY_STRIDE, Gpu, node_distance
from .spec import Spec

CPUS = 2
TCG = "tcg"
KVM = "kvm"


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
        """Return the vfio-user socket of a GPU."""
        return self.run / f"gpu{gpu.index}"

    def gpu_control(self, gpu: Gpu) -> Path:
        """Return the control socket of a GPU."""
        return self.run / f"gpu{gpu.index}.control"

    def gpu_log(self, gpu: Gpu) -> Path:
        """Return the log of a GPU's registers."""
        return self.directory / f"gpu{gpu.index}.log"


def _machine(spec: Spec, emulator: Emulator, accel: str) -> list[str]:
    if spec.arch.name == "arm64":
        # virtualization=on gives the host its own EL2 and so its own /dev/kvm. pauth=off because computing pointer
        # authentication in software takes a quarter of the boot.
        machine = "virt,virtualization=on,gic-version=3,nvdimm=on"
        cpu = "host" if accel == KVM else "max,pauth=off"
        firmware = ["-drive", f"if=pflash,format=raw,readonly=on,file={emulator.arm_firmware}"]
    else:
        machine, firmware = "q35,nvdimm=on,kernel-irqchip=split" if accel == KVM else "q35,nvdimm=on", []
        cpu = "host" if accel == KVM else "max"
    engine = KVM if accel == KVM else "tcg,thread=multi,tb-size=1024"
    return ["-machine", machine, "-cpu", cpu, "-accel", engine, "-smp", str(CPUS), *firmware]


def _memory(gpus: Sequence[Gpu]) -> list[str]:
    slots = len(gpus) + 1
    top = FIRST_MEMORY_BASE + slots * MEMORY_STRIDE
    words = ["-m", f"{HOST_RAM >> 20}M,slots={slots},maxmem={top // GIB}G",
             "-object", f"memory-backend-ram,id=ram0,size={HOST_RAM >> 20}M",
             "-numa", f"node,nodeid=0,memdev=ram0,cpus=0-{CPUS - 1}"]
    for gpu in gpus:
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


def _functions(spec: Spec, files: Files) -> list[str]:
    words: list[str] = []
    for gpu in spec.gpus:
        device = {"driver": "vfio-user-pci", "id": f"gpu{gpu.index}", "addr": f"{gpu.slot:02x}.{gpu.function}",
                  "multifunction": spec.faults.shared_group,
                  "socket": {"type": "unix", "path": str(files.gpu_socket(gpu))}}
        words += ["-device", json.dumps(device)]
    if spec.faults.no_iommu:
        return words
    if spec.arch.name == "arm64":
        # After the GPUs: QEMU refuses a vfio-user function behind an SMMUv3 that is there already (it lacks the MAP
        # notifier), and the host's kernel sees the same either way. QEMU does not translate the function's DMA then;
        # it does none.
        return [*words, "-device", json.dumps({"driver": "arm-smmuv3", "primary-bus": "pcie.0", "id": "smmu0"})]
    return ["-device", "intel-iommu,intremap=on,caching-mode=on", *words]


def _kernel_arguments(spec: Spec) -> str:
    words = ["root=/dev/vda", "rw", f"console={spec.arch.console}", "quiet", "systemd.show_status=0",
             f"systemd.hostname={spec.name}"]
    if spec.arch.name == "arm64" and spec.snapshots:
        # QEMU saves the timers of EL1 and none of EL2's. A kernel that finds VHE stays in EL2 and, brought back, waits
        # for ever for the next tick of a processor that was idle.
        words += ["kvm-arm.mode=nvhe"]
    if spec.arch.name == "amd64":
        words += ["mitigations=off"] + ([] if spec.faults.no_iommu else ["intel_iommu=on"])
    return " ".join([*words, *spec.kernel.arguments])


def qemu_argv(spec: Spec, files: Files, emulator: Emulator, kernel: Path | None, ssh_port: int,
              accel: str, snapshot: str | None = None) -> list[str]:
    """Return the argv of QEMU; without a kernel the firmware runs and finds nothing to boot.

    With a snapshot QEMU goes on from that instead; everything else must be as it was when the snapshot was taken.
    Only loopback is reachable from outside, on ``ssh_port``.
    """
    boot = [] if kernel is None else ["-kernel", str(kernel), "-initrd", str(files.initrd),
                                      "-append", _kernel_arguments(spec)]
    return [
        *emulator.command(f"qemu-system-{spec.arch.qemu}"), *emulator.data_options(),
        "-name", spec.name, "-nodefaults", "-no-user-config", "-display", "none",
        *_machine(spec, emulator, accel), *_memory(spec.gpus),
        *boot, *(["-loadvm", snapshot] if snapshot else []),
        # What a kernel said before it crashed stays there when the host is brought back.
        "-chardev", f"file,id=console,path={files.console},append=on", "-serial", "chardev:console",
        "-qmp", f"unix:{files.qmp},server=on,wait=off",
        # A lab is thrown away: nothing on its disk has to survive a crash of this machine.
        "-drive", f"if=none,id=disk0,format=qcow2,cache=unsafe,file={files.disk}",
        "-device", "virtio-blk-pci,drive=disk0",
        "-netdev", f"user,id=net0,hostfwd=tcp:127.0.0.1:{ssh_port}-:22",
        "-device", "virtio-net-pci,netdev=net0,romfile=",
        "-object", "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng0",
        *_functions(spec, files), *_topology(spec.gpus),
    ]
