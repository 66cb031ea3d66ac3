# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""What QEMU is told, what the cache promises, and what the checks conclude."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from nvlab import cpio, machine, processes, recipe, report, state
from nvlab.argv import KVM, TCG, Files, qemu_argv
from nvlab.cache import Cache, digest, mounts_below
from nvlab.check import judge, overlaps, sections
from nvlab.cli import main
from nvlab.emulator import Emulator, parse_version
from nvlab.errors import LabError
from nvlab.image import tiny_initramfs
from nvlab.spec import Spec, make_spec
from nvlab.ssh import Login, banner_timeout


def spec(**changes: object) -> Spec:
    wanted = {"name": "grace", "arch": "arm64", "kernel": "7.3", "product": "gh200-120gb", "gpus": 1, "faults": []}
    return make_spec(**{**wanted, **changes})


def argv(wanted: Spec, accel: str = TCG) -> list[str]:
    return qemu_argv(wanted, Files(Path("/cache/labs/grace"), Path("/tmp/run")), Emulator(Path("/")),
                     Path("/image/vmlinuz"), 2222, accel)


def values(words: list[str], option: str) -> list[str]:
    return [words[at + 1] for at, word in enumerate(words) if word == option]


def drivers(words: list[str]) -> list[str]:
    return [json.loads(value)["driver"] if value.startswith("{") else value.split(",")[0]
            for value in values(words, "-device")]


def test_arm64_machine() -> None:
    words = argv(spec())
    assert words[0] == "qemu-system-aarch64"
    assert values(words, "-machine") == ["virt,virtualization=on,gic-version=3,nvdimm=on"]
    assert values(words, "-cpu") == ["max,pauth=off"]
    assert any("AAVMF" in value and "readonly=on" in value for value in values(words, "-drive"))
    assert drivers(words).index("vfio-user-pci") < drivers(words).index("arm-smmuv3")
    assert "systemd.hostname=grace" in values(words, "-append")[0]


def test_amd64_machine() -> None:
    words = argv(spec(arch="amd64"))
    assert words[0] == "qemu-system-x86_64"
    assert drivers(words).index("intel-iommu") < drivers(words).index("vfio-user-pci")
    assert "intel_iommu=on" in values(words, "-append")[0]
    assert "console=ttyS0" in values(words, "-append")[0]


@pytest.mark.parametrize("arch", ["arm64", "amd64"])
def test_no_iommu(arch: str) -> None:
    words = argv(spec(arch=arch, faults=["no-iommu"]))
    assert not {"arm-smmuv3", "intel-iommu"} & set(drivers(words))
    assert "intel_iommu" not in values(words, "-append")[0]


def test_only_loopback_is_reachable() -> None:
    assert values(argv(spec()), "-netdev") == ["user,id=net0,hostfwd=tcp:127.0.0.1:2222-:22"]


def test_two_gpus() -> None:
    words = argv(spec(gpus=2, product="gb200"))
    functions = [json.loads(value) for value in values(words, "-device") if "vfio-user" in value]
    assert [(one["addr"], one["socket"]["path"]) for one in functions] == [("10.0", "/tmp/run/gpu0"),
                                                                           ("11.0", "/tmp/run/gpu1")]
    memory = [value for value in values(words, "-device") if value.startswith("nvdimm")]
    assert memory == ["nvdimm,memdev=gpumem0,id=nvdimm0,addr=0x200000000",
                      "nvdimm,memdev=gpumem1,id=nvdimm1,addr=0x300000000"]
    objects = values(words, "-object")
    assert sum(value.startswith("acpi-generic-initiator") for value in objects) == 14
    assert sum(value.startswith("node,") for value in values(words, "-numa")) == 15
    assert sum(value.startswith("dist,") for value in values(words, "-numa")) == 15 * 14 // 2
    assert "memory-backend-ram,id=gpumem1,size=1280M" in objects


def test_shared_group_is_one_slot() -> None:
    wanted = spec(gpus=2, faults=["shared-group"])
    assert [gpu.address for gpu in wanted.gpus] == ["0000:00:10.0", "0000:00:10.1"]
    functions = [json.loads(value) for value in values(argv(wanted), "-device") if "vfio-user" in value]
    assert [(device["addr"], device["multifunction"]) for device in functions] == [("10.0", True), ("10.1", True)]


def test_memory_ends_below_maxmem() -> None:
    for count in (1, 4):
        wanted = spec(gpus=count, product="gh200-144gb")
        limit = int(re.search(r"maxmem=(\d+)G", values(argv(wanted), "-m")[0])[1]) << 30
        last = wanted.gpus[-1]
        assert last.memory_base + last.product.memory <= limit


def test_kvm_uses_the_real_processor() -> None:
    words = argv(spec(arch="amd64"), KVM)
    assert (values(words, "-cpu"), values(words, "-accel")) == (["host"], ["kvm"])


def test_unpacked_emulator_runs_through_its_own_loader() -> None:
    command = Emulator(Path("/cache/root")).command("qemu-img")
    assert command[0].startswith("/cache/root/usr/lib/") and "/ld-linux" in command[0]
    assert command[-1] == "/cache/root/usr/bin/qemu-img"


@pytest.mark.parametrize(("text", "version"), [("QEMU emulator version 10.1.0 (Debian)", (10, 1)),
                                               ("QEMU emulator version 7.2.22", (7, 2))])
def test_version(text: str, version: tuple[int, int]) -> None:
    assert parse_version(text) == version


def test_version_nonsense() -> None:
    with pytest.raises(LabError, match="Cannot read"):
        parse_version("bash: not found")


@pytest.mark.parametrize(("targets", "mirror"), [
    ("Debian trixie-security http://a/\nDebian trixie http://b/\n", "http://b/"),
    ("Debian bookworm http://security.a/\nDebian bookworm http://b/", "http://b/"),
    ("Ubuntu noble http://u/\n", None),
    ("", None),
])
def test_mirror(targets: str, mirror: str | None) -> None:
    assert machine.pick_mirror(targets) == mirror


def test_image_key_follows_its_inputs() -> None:
    arm, amd = recipe.ARCHES["arm64"], recipe.ARCHES["amd64"]
    new, old = recipe.KERNELS["7.3"], recipe.KERNELS["6.12"]
    keys = [recipe.image_key(arm, new, "key"), recipe.image_key(arm, old, "key"), recipe.image_key(amd, new, "key"),
            recipe.image_key(arm, new, "other key")]
    assert len(set(keys)) == len(keys)
    assert recipe.image_key(arm, new, "key") == keys[0]


def test_digest_keeps_parts_apart() -> None:
    assert digest("ab", "c") != digest("a", "bc")


def test_cpio_is_readable(tmp_path: Path) -> None:
    members = {"kernel/firmware/acpi/x.aml": cpio.Member(b"12345"), "init": cpio.Member(b"#!", 0o755)}
    data = cpio.archive(members, ("dev",))
    assert len(data) % 4 == 0
    names, at = [], 0
    while at < len(data):
        assert data[at:at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n:at + 14 + 8 * n], 16) for n in range(13)]
        name_at = at + 110
        name = data[name_at:name_at + fields[11] - 1].decode()
        body = name_at + fields[11] + -(110 + fields[11]) % 4
        names.append((name, oct(fields[1]), data[body:body + fields[6]]))
        at = body + fields[6] + -fields[6] % 4
    assert names == [("dev", "0o40755", b""), ("kernel", "0o40755", b""), ("kernel/firmware", "0o40755", b""),
                     ("kernel/firmware/acpi", "0o40755", b""), ("init", "0o100755", b"#!"),
                     ("kernel/firmware/acpi/x.aml", "0o100644", b"12345"), ("TRAILER!!!", "0o0", b"")]


def test_tiny_guest_is_reproducible() -> None:
    one = tiny_initramfs(b"busybox")
    assert one == tiny_initramfs(b"busybox")
    assert b"GUEST-DONE" in gzip.decompress(one)


def test_cache_entries_are_whole_or_absent(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def fail(target: Path) -> None:
        (target / "half").write_text("made")
        raise LabError("no network")

    with pytest.raises(LabError, match="no network"):
        cache.provide("thing", fail)
    assert not list(tmp_path.glob("*thing*"))
    (tmp_path / "lab-tmp.thing").mkdir()
    (tmp_path / "lab-tmp.thing" / "left by a killed build").write_text("")
    entry = cache.provide("thing", lambda target: (target / "file").write_text("whole") and None)
    assert [path.name for path in entry.iterdir()] == ["file"]
    assert cache.provide("thing", fail) == entry


def test_mounts_below() -> None:
    info = "\n".join([
        "1 0 8:1 / / rw - ext4 /dev/sda rw", "2 1 0:5 / /cache/root/proc rw - proc proc rw",
        "3 2 0:6 / /cache/root/proc/sys/x rw - y y rw", "4 1 0:7 / /cache/rootless rw - z z rw",
        "5 1 0:8 / /cache/root/with\\040space rw - z z rw",
    ])
    assert mounts_below(Path("/cache/root"), info) == ["/cache/root/proc/sys/x", "/cache/root/with space",
                                                       "/cache/root/proc"]


IOMEM = ["09000000-09000fff : PL011", "40000000-13fffffff : System RAM", "  40210000-4200ffff : Kernel code",
         "8000000000-ffffffffff : PCI Bus 0000:00"]


@pytest.mark.parametrize(("first", "last", "hits"), [
    (0x200000000, 0x29FFFFFFF, []),
    (0x60000000, 0xFFFFFFFF, ["40000000-13fffffff : System RAM"]),
    (0x13FFFFFFF, 0x13FFFFFFF, ["40000000-13fffffff : System RAM"]),
    (0x140000000, 0x7FFFFFFFFF, []),
])
def test_overlaps(first: int, last: int, hits: list[str]) -> None:
    assert overlaps(IOMEM, first, last) == hits


HEALTHY = """@@ iomem
40000000-13fffffff : System RAM
@@ kvm
present
@@ libvirt
  <domain>kvm</domain>
@@ initiators
1-8
@@ distance
10 80 80 80 80 80 80 80 80
@@ properties
/sys/firmware/acpi/tables/SSDT2
@@ kernel
7.3.4+deb13-arm64
@@ loader
@@ secure-boot
@@ lockdown
[none] integrity confidentiality
@@ functions
0000:00:10.0 0x10de:0x2342 4
"""


@pytest.mark.parametrize(("old", "new", "failing"), [
    ("", "", []),
    ("0x2342 4", "0x2342 none", ["gpu0 IOMMU group"]),
    ("0x2342", "0x2345", ["gpu0 function"]),
    ("0000:00:10.0", "0000:00:11.0", ["gpu0 function"]),
    ("13fffffff", "23fffffff", ["gpu0 memory"]),
    ("present\n", "", ["/dev/kvm"]),
    ("<domain>kvm", "<domain>qemu", ["libvirt offers kvm"]),
    ("1-8", "0", ["generic initiators"]),
    ("10 80 80", "10 80", ["distances"]),
    ("/sys/firmware/acpi/tables/SSDT2\n", "", ["ACPI properties"]),
    ("7.3.4", "6.12.1", ["kernel"]),
])
def test_check_finds(old: str, new: str, failing: list[str]) -> None:
    results = judge(spec(), sections(HEALTHY.replace(old, new)))
    assert [result.name for result in results if not result.passed] == failing


@pytest.mark.parametrize(("faults", "failing"), [
    (["no-iommu"], ["gpu0 IOMMU group"]), (["no-properties"], ["ACPI properties"]), (["size-zero"], []),
])
def test_check_expects_the_fault(faults: list[str], failing: list[str]) -> None:
    results = judge(spec(faults=faults), sections(HEALTHY))
    assert [result.name for result in results if not result.passed] == failing


def test_ssh_command_line() -> None:
    login = Login(2222, Path("/cache/id"))
    assert login.argv()[-1] == "root@127.0.0.1"
    assert login.argv(["uname -a | cat"])[-1] == "uname -a | cat"
    assert login.argv(["grep", "a b"])[-1] == "grep 'a b'"
    assert "UserKnownHostsFile=/dev/null" in login.argv()


def make_lab(tmp_path: Path, **changes: object) -> tuple[Cache, state.Lab]:
    cache = Cache(tmp_path)
    directory = state.lab_directory(cache, "grace")
    directory.mkdir(parents=True)
    me = processes.launch(["sleep", "60"], tmp_path / "log")
    lab = state.Lab(spec(**changes), Files(directory, tmp_path / "run"), state.RUNNING, 2222, TCG, tmp_path,
                    {"qemu": me}, 19.5)
    state.save(lab)
    return cache, lab


def test_state_survives_and_notices_death(tmp_path: Path) -> None:
    cache, lab = make_lab(tmp_path, faults=["ready-after=5", "no-iommu"], gpus=2)
    assert state.load(cache, "grace") == lab
    assert lab.state() == state.RUNNING
    assert [one.spec.name for one in state.load_all(cache)] == ["grace"]
    processes.end(list(lab.processes.values()))
    assert lab.state() == state.DEAD
    assert state.load(cache, "other") is None


def test_end_spares_a_reused_number(tmp_path: Path) -> None:
    process = processes.launch(["sleep", "60"], tmp_path / "log")
    stranger = processes.ProcessId(process.pid, process.started - 1)
    assert not stranger.alive()
    processes.end([stranger])
    assert process.alive()
    os.kill(process.pid, signal.SIGKILL)


def test_reports(tmp_path: Path) -> None:
    _, lab = make_lab(tmp_path, gpus=2)
    data = report.as_data(lab, Path("/cache/id"))
    assert data["gpus"][1]["address"] == "0000:00:11.0"
    assert data["gpus"][1]["memory_base"] == data["gpus"][1]["firmware_base"] == 12 << 30
    assert (data["state"], data["ssh"], data["boot_seconds"]) == ("running", {"port": 2222, "key": "/cache/id"}, 19.5)
    host = yaml.safe_load(report.inventory([lab], Path("/cache/a: b#c/id")))["all"]["hosts"]["grace"]
    assert (host["ansible_host"], host["ansible_port"], host["ansible_user"]) == ("127.0.0.1", 2222, "root")
    assert host["ansible_ssh_private_key_file"] == "/cache/a: b#c/id"
    assert "UserKnownHostsFile=/dev/null" in host["ansible_ssh_common_args"]
    assert host["ansible_timeout"] == 100
    assert report.table([lab]).splitlines()[1].split()[:3] == ["grace", "running", "arm64"]
    processes.end(list(lab.processes.values()))


@pytest.mark.parametrize(("fault", "size"), [("odd-size", (2560 << 20) - 1000), ("no-properties", None)])
def test_report_says_what_firmware_says(fault: str, size: int | None, tmp_path: Path) -> None:
    _, lab = make_lab(tmp_path, faults=[fault])
    gpu = report.as_data(lab, Path("/cache/id"))["gpus"][0]
    assert (gpu["memory_size"], gpu["firmware_size"]) == (2560 << 20, size)
    processes.end(list(lab.processes.values()))


@pytest.mark.parametrize(("arguments", "message"), [
    (["start", "--product", "h100"], "There is no product 'h100'"),
    (["start", "--fault", "smoke"], "There is no fault 'smoke'"),
    (["start", "--gpus", "many"], "invalid int value"),
    (["build", "--kernel", "5.10"], "There is no kernel '5.10'"),
    (["start", "UPPER"], "is no name for a lab"),
    (["stop", "nobody"], "There is no lab 'nobody'"),
    (["ssh", "nobody", "--", "true"], "There is no lab 'nobody'"),
    (["reboot", "nobody"], "There is no lab 'nobody'"),
    (["reset", "nobody"], "There is no lab 'nobody'"),
    (["explode"], "invalid choice: 'explode'"),
    ([], "following arguments are required"),
])
def test_bad_input_is_one_sentence(arguments: list[str], message: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("NVGRACE_LAB_CACHE", str(tmp_path / "cache"))
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not (tmp_path / "cache").exists()


def test_not_root(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("NVGRACE_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["start"]) == 2
    assert "must run as root" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_too_little_disk(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("NVGRACE_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: SimpleNamespace(free=100 << 20))
    assert main(["start"]) == 2
    assert "100 MiB free" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_a_running_name_is_refused(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("NVGRACE_LAB_CACHE", str(tmp_path))
    _, lab = make_lab(tmp_path)
    assert main(["start", "grace"]) == 2
    assert "is running already" in capsys.readouterr().err
    processes.end(list(lab.processes.values()))


def test_entry_point_runs() -> None:
    program = Path(__file__).resolve().parents[2] / "lab" / "lab"
    answer = subprocess.run([program, "--help"], check=True, capture_output=True, text=True)
    assert "reboot" in answer.stdout


@pytest.mark.parametrize(("waited", "timeout"), [(0, 3), (12, 3), (40, 10), (240, 60), (600, 60)])
def test_patience_grows(waited: float, timeout: float) -> None:
    assert banner_timeout(waited) == timeout
