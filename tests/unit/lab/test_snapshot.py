# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Saving a host and bringing it back: what is asked of the host and of QEMU, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from nvlab import lifecycle, processes, snapshot, state
from nvlab.argv import TCG, Files, qemu_argv
from nvlab.cache import Cache
from nvlab.cli import main
from nvlab.emulator import Emulator
from nvlab.errors import LabError
from nvlab.spec import make_spec


class Monitor:
    """QEMU's side of the monitor: answers every command, and notes it."""

    def __init__(self, path: Path, reply: Callable[[str], object]) -> None:
        self.commands: list[str] = []
        self._reply = reply
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, _ = self._listener.accept()
            with client, client.makefile("rw") as stream:
                stream.write('{"QMP": {}}\n')
                stream.flush()
                for line in stream:
                    request = json.loads(line)
                    command = request.get("arguments", {}).get("command-line") or request["execute"]
                    if command != "qmp_capabilities":
                        self.commands.append(command)
                    stream.write('{"event": "NOISE"}\n' + json.dumps({"return": self._reply(command)}) + "\n")
                    stream.flush()


def make_lab(tmp_path: Path, **changes: object) -> tuple[Cache, state.Lab]:
    wanted = {"name": "grace", "arch": "arm64", "kernel": "7.3", "product": "gb200", "gpus": 2, "faults": [],
              "snapshots": True}
    cache = Cache(tmp_path)
    directory = state.lab_directory(cache, "grace")
    directory.mkdir(parents=True)
    process = processes.launch(["sleep", "60"], tmp_path / "log")
    lab = state.Lab(make_spec(**{**wanted, **changes}), Files(directory, tmp_path), state.RUNNING, 2222, TCG, tmp_path,
                    {"qemu": process})
    state.save(lab)
    return cache, lab


def test_a_host_is_stopped_while_it_is_saved(tmp_path: Path) -> None:
    _, lab = make_lab(tmp_path)
    monitor = Monitor(lab.files.qmp, lambda command: "" if command.startswith("savevm") else {})
    snapshot._save(lab)
    assert monitor.commands == ["stop", "savevm nvgrace", "cont"]
    processes.end(list(lab.processes.values()))


def test_a_host_goes_on_when_it_cannot_be_saved(tmp_path: Path) -> None:
    _, lab = make_lab(tmp_path)
    monitor = Monitor(lab.files.qmp, lambda command: "Error: no space\r\n" if command.startswith("savevm") else {})
    with pytest.raises(LabError, match="Error: no space"):
        snapshot._save(lab)
    assert monitor.commands[-1] == "cont"
    processes.end(list(lab.processes.values()))


def functions(tmp_path: Path, bound: bool) -> Path:
    for address in ("0000:00:10.0", "0000:00:11.0"):
        (tmp_path / address).mkdir()
    if bound:
        (tmp_path / "vfio-pci").mkdir()
        (tmp_path / "0000:00:11.0" / "driver").symlink_to("../vfio-pci")
    return tmp_path


@pytest.mark.parametrize("bound", [False, True])
def test_functions_are_let_go_of_unless_one_has_a_driver(bound: bool, tmp_path: Path) -> None:
    devices = functions(tmp_path, bound)
    script = snapshot.release_script(["0000:00:10.0", "0000:00:11.0", "0000:00:12.0"])
    assert "cd /sys/bus/pci/devices\n" in script
    done = subprocess.run(["sh", "-e", "-c", script.replace("/sys/bus/pci/devices", str(devices))], check=False,
                          capture_output=True, text=True)
    assert [(devices / name / "remove").exists() for name in ("0000:00:10.0", "0000:00:11.0")] == [not bound] * 2
    assert done.returncode == (3 if bound else 0)
    assert ("0000:00:11.0 is bound to vfio-pci" in done.stderr) == bound


def test_a_host_that_comes_back_gets_the_time_and_its_gpus() -> None:
    assert snapshot.resume_script(1234.5) == "date -s @1234.500 > /dev/null\necho 1 > /sys/bus/pci/rescan\n"


def test_command_line_of_a_host_that_comes_back(tmp_path: Path) -> None:
    _, lab = make_lab(tmp_path)
    rest = (lab.spec, lab.files, Emulator(Path("/")), Path("/vmlinuz"), 2222, TCG)
    first, again = qemu_argv(*rest), qemu_argv(*rest, snapshot="nvgrace")
    at = again.index("-loadvm")
    assert again[at + 1] == "nvgrace"
    assert again[:at] + again[at + 2:] == first
    processes.end(list(lab.processes.values()))


@pytest.mark.parametrize(("arch", "snapshots", "nvhe"), [("arm64", True, True), ("arm64", False, False),
                                                         ("amd64", True, False)])
def test_only_an_arm64_host_pays_for_snapshots(arch: str, snapshots: bool, nvhe: bool, tmp_path: Path) -> None:
    spec = make_spec("grace", arch, "7.3", "gb200", 1, [], snapshots)
    words = qemu_argv(spec, Files(tmp_path, tmp_path), Emulator(Path("/")), Path("/vmlinuz"), 2222, TCG)
    assert ("kvm-arm.mode=nvhe" in words[words.index("-append") + 1]) == nvhe


@pytest.mark.parametrize(("changes", "verb", "message"), [
    ({"snapshots": False}, "snapshot", "cannot be saved; start it with --snapshots"),
    ({}, "rollback", "has no snapshot to go back to"),
])
def test_refusals(changes: dict[str, object], verb: str, message: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("NVGRACE_LAB_CACHE", str(tmp_path))
    cache, lab = make_lab(tmp_path, **changes)
    assert main([verb, "grace"]) == 2
    assert message in capsys.readouterr().err
    assert lab.processes["qemu"].alive()
    assert state.load(cache, "grace") == lab
    processes.end(list(lab.processes.values()))


def test_a_snapshot_goes_with_the_disk(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("NVGRACE_LAB_CACHE", str(tmp_path))
    cache, lab = make_lab(tmp_path)
    lab = dataclasses.replace(lab, snapshot=True, files=Files(lab.files.directory, tmp_path / "run"))
    state.save(lab)
    processes.end(list(lab.processes.values()))
    assert lab.state() == state.DEAD
    assert state.images_in_use(cache) == {lab.image}, "it can still be brought back"
    lifecycle.stop(cache, "grace")
    assert state.images_in_use(cache) == set()
    assert main(["rollback", "grace"]) == 2


def test_state_of_an_older_lab_is_read(tmp_path: Path) -> None:
    cache, lab = make_lab(tmp_path, snapshots=False)
    path = lab.files.directory / state.STATE_FILE
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items()
                                if not key.startswith("snapshot")}))
    assert state.load(cache, "grace") == lab
    processes.end(list(lab.processes.values()))
