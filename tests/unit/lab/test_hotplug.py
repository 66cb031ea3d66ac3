# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Cards that are taken out of a running host and put in again, and processes that have one in use."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from nvlab import holders, hotplug
from nvlab.argv import TCG, Files, qemu_argv
from nvlab.emulator import Emulator
from nvlab.errors import LabError, UsageError
from nvlab.spec import Spec, make_spec
from nvlab.state import RUNNING, Lab


def spec(product: str = "rtx-audio", gpus: int = 2, hotplug: bool = True) -> Spec:
    return make_spec("grace", "amd64", "7.3", product, gpus, [], hotplug=hotplug)


def devices(wanted: Spec) -> list[dict[str, object]]:
    files = Files(Path("/cache/labs/grace"), Path("/run/x"))
    words = qemu_argv(wanted, files, Emulator(Path("/")), Path("/vmlinuz"), 2222, TCG)
    found = [json.loads(word) for word in words if word.startswith("{")]
    return [device for device in found if device["driver"] in ("vfio-user-pci", "pcie-root-port")]


def test_each_card_has_a_slot_of_its_own() -> None:
    ports = {device["id"]: device["addr"] for device in devices(spec()) if device["driver"] == "pcie-root-port"}
    assert ports == {"port0": "10.0", "port1": "11.0"}
    functions = {device["id"]: (device["bus"], device["addr"], device["multifunction"])
                 for device in devices(spec()) if device["driver"] == "vfio-user-pci"}
    assert functions == {
        "gpu0": ("port0", "00.0", True), "gpu0-audio": ("port0", "00.1", True),
        "gpu1": ("port1", "00.0", True), "gpu1-audio": ("port1", "00.1", True),
    }


def test_a_card_on_the_root_bus_stays() -> None:
    assert [(device["id"], device.get("bus"), device["addr"]) for device in devices(spec("h100-pcie", 1, False))] == [
        ("gpu0", None, "10.0")]


class Machine:
    """QEMU's monitor with a host that lets go of a card, or does not."""

    def __init__(self, path: Path, lets_go: bool = True) -> None:
        self.devices = ["port0", "port1", "gpu0-audio", "gpu0", "gpu1-audio", "gpu1"]
        self.commands: list[tuple[str, str]] = []
        self._lets_go = lets_go
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, _ = self._listener.accept()
            with client, client.makefile("rw") as stream:
                print('{"QMP": {}}', file=stream, flush=True)
                for line in stream:
                    request = json.loads(line)
                    answer = self._carry_out(request["execute"], request.get("arguments", {}))
                    print(json.dumps({"return": answer}), file=stream, flush=True)

    def _carry_out(self, command: str, arguments: dict[str, str]) -> object:
        if command == "qom-list":
            return [{"name": name, "type": "child<x>"} for name in self.devices]
        if command in ("device_del", "device_add"):
            self.commands.append((command, arguments["id"]))
        if command == "device_del" and self._lets_go:
            # Function 0 takes the others with it.
            self.devices = [name for name in self.devices if not name.startswith(arguments["id"])]
        if command == "device_add":
            self.devices.append(arguments["id"])
        return {}


def make_lab(tmp_path: Path, wanted: Spec) -> Lab:
    return Lab(wanted, Files(tmp_path, tmp_path), RUNNING, 2222, TCG, tmp_path, {})


def test_a_card_goes_and_comes_back(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, spec())
    machine = Machine(lab.files.qmp)
    gpu = lab.spec.gpus[0]
    hotplug.carry_out(lab, gpu, "vanish")
    assert not hotplug.plugged(lab, gpu)
    assert hotplug.plugged(lab, lab.spec.gpus[1])
    with pytest.raises(UsageError, match="GPU 0 of 'grace' is out of its slot already"):
        hotplug.carry_out(lab, gpu, "vanish")
    hotplug.carry_out(lab, gpu, "add")
    assert machine.commands == [("device_del", "gpu0"), ("device_add", "gpu0-audio"), ("device_add", "gpu0")]
    with pytest.raises(UsageError, match="is in its slot already"):
        hotplug.carry_out(lab, gpu, "add")


def test_a_card_whose_driver_is_in_use_stays(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(hotplug, "TIMEOUT", 0.2)
    lab = make_lab(tmp_path, spec())
    Machine(lab.files.qmp, lets_go=False)
    with pytest.raises(LabError, match="has not let go of GPU 0 within 0 s; is its driver in use?"):
        hotplug.carry_out(lab, lab.spec.gpus[0], "vanish")
    assert hotplug.plugged(lab, lab.spec.gpus[0])


def test_without_slots_nothing_is_taken_out(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, spec(hotplug=False))
    machine = Machine(lab.files.qmp)
    with pytest.raises(UsageError, match="in no hotplug slot; start it with --hotplug"):
        hotplug.carry_out(lab, lab.spec.gpus[0], "vanish")
    assert machine.commands == []


class Host:
    """A host that answers hold.sh."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.scripts: list[str] = []

    def upload(self, directory: Path, target: str) -> None:
        self.scripts.append(f"upload {directory.name} {target}")

    def run(self, script: str, timeout: float = 0) -> str:
        self.scripts.append(script)
        return self.answer


def test_hold() -> None:
    host = Host("4711 /dev/vfio/7\n")
    gpu = spec(hotplug=False).gpus[1]
    assert holders.hold(host, gpu, "vfio") == {"pid": 4711, "node": "/dev/vfio/7"}
    assert host.scripts[-1] == "sh /usr/src/nvgrace-lab-holder/hold.sh vfio 0000:00:11.0"
    holders.let_go(host, gpu)
    assert host.scripts[-1] == "systemctl stop 'nvgrace-lab-hold-*-0000:00:11.0.service'"


@pytest.mark.parametrize(("kind", "answer", "error", "message"), [
    ("qemu", "", UsageError, "Nobody holds a GPU as 'qemu'; the lab knows vfio, nvidia"),
    ("vfio", "", LabError, "answered something unexpected"),
])
def test_hold_refuses(kind: str, answer: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        holders.hold(Host(answer), spec().gpus[0], kind)


@pytest.mark.parametrize(("kind", "linked", "message"), [
    ("vfio", {"iommu_group": "../7", "driver": "../nvidia"}, "has no /dev/vfio/7; its driver is nvidia"),
    ("cuda", {}, "nobody holds a function as cuda"),
])
def test_the_script_says_why_not(kind: str, linked: dict[str, str], message: str, tmp_path: Path) -> None:
    device = tmp_path / "0000:00:10.0"
    device.mkdir()
    for name, target in linked.items():
        (device / target).mkdir()
        (device / name).symlink_to(target)
    script = (holders.ASSETS / "hold.sh").read_text().replace("/sys/bus/pci/devices", str(tmp_path))
    done = subprocess.run(["sh", "-c", script, "hold.sh", kind, "0000:00:10.0"], check=False, capture_output=True,
                          text=True, env=os.environ)
    assert done.returncode == 1
    assert message in done.stderr
