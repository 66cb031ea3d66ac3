# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Booting by firmware: its flash and variables, the disk, and the tables that a boot loader hands to the kernel."""

from __future__ import annotations

import base64
import json
import os
import struct
import subprocess
import uuid
from pathlib import Path

import pytest
from nvlab import aml, bootdisk, efivars, lifecycle, placeholder, recipe, state
from nvlab.argv import TCG, Files, install_argv, qemu_argv
from nvlab.cache import Cache
from nvlab.check import judge, sections
from nvlab.cli import main
from nvlab.efivars import SHIM, Variable
from nvlab.emulator import Emulator
from nvlab.errors import LabError, UsageError
from nvlab.placeholder import SECTOR, Run
from nvlab.spec import Spec, make_spec
from nvlab.state import RUNNING, Lab

DER = b"\x30\x82" + bytes(range(98))
PEM = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(DER) + b"-----END CERTIFICATE-----\n"
GLOBAL = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")


def spec(arch: str = "amd64", secure_boot: bool = False, product: str = "gh200-120gb", boot: str = "firmware") -> Spec:
    return make_spec("grace", arch, "7.3", product, 1, [], boot=boot, secure_boot=secure_boot)


def argv(wanted: Spec) -> list[str]:
    return qemu_argv(wanted, Files(Path("/cache/labs/grace"), Path("/run/x")), Emulator(Path("/")), None, 2222, TCG)


def flash(words: list[str]) -> list[str]:
    return [word.rpartition("/")[2] + (" read only" if "readonly=on" in word else "")
            for word in words if "if=pflash" in word]


@pytest.mark.parametrize(("arch", "secure_boot", "firmware"), [
    ("amd64", False, "OVMF_CODE_4M.fd read only"),
    ("amd64", True, "OVMF_CODE_4M.secboot.fd read only"),
    ("arm64", False, "AAVMF_CODE.no-secboot.fd read only"),
    ("arm64", True, "AAVMF_CODE.secboot.fd read only"),
])
def test_flash(arch: str, secure_boot: bool, firmware: str) -> None:
    words = argv(spec(arch, secure_boot))
    assert flash(words) == [firmware, "efivars.fd"]
    assert not {"-kernel", "-initrd", "-append"} & set(words)
    protected = arch == "amd64" and secure_boot
    assert ("driver=cfi.pflash01,property=secure,value=on" in words) == protected
    assert any(word.endswith(",smm=on") for word in words) == protected


def test_direct_boot_has_no_variables() -> None:
    assert flash(argv(spec("amd64", boot="direct"))) == []
    assert flash(argv(spec("arm64", boot="direct"))) == ["AAVMF_CODE.no-secboot.fd read only"]


def test_the_loader_is_installed_on_a_bare_machine(tmp_path: Path) -> None:
    words = install_argv(recipe.ARCHES["arm64"], Emulator(Path("/")), TCG, tmp_path / "vmlinuz", tmp_path / "initrd",
                         tmp_path / "disk", tmp_path / "console", 2222)
    assert words[words.index("-append") + 1].startswith("root=/dev/vda2 rw ")
    assert not [word for word in words if "vfio-user" in word or "nvdimm0" in word]


def store(*variables: Variable, size: int = 4096) -> bytes:
    header = bytes(16) + uuid.UUID("fff12b8d-7696-4c8b-a985-2747075b4f50").bytes_le + struct.pack("<Q", 8192)
    header += b"_FVH" + struct.pack("<IHHHBB", 0, 72, 0, 0, 0, 2) + bytes(16)
    kind = uuid.UUID("aaf32c78-947b-439a-a180-2e144ec37792").bytes_le
    empty = header + kind + struct.pack("<IBBHI", size, 0x5A, 0xFE, 0, 0)
    data = empty + b"\xff" * (72 + size - len(empty)) + b"what lies behind the store"
    for variable in variables:
        data = efivars.with_variable(data, variable)
    return data


def test_a_variable_is_added_and_replaced() -> None:
    one, two = Variable("Timeout", GLOBAL, 7, b"\5\0"), Variable("Lang", GLOBAL, 7, b"eng\0")
    data = store(one, two)
    assert efivars.variables(data) == [one, two]
    assert len(data) == len(store())
    assert data.endswith(b"what lies behind the store")
    shorter = Variable("Timeout", GLOBAL, 7, b"\0\0")
    assert efivars.variables(efivars.with_variable(data, shorter)) == [two, shorter]
    stranger = Variable("Timeout", SHIM, 7, b"\0\0")
    assert efivars.variables(efivars.with_variable(data, stranger)) == [one, two, stranger]


def test_a_variable_as_the_firmware_reads_it() -> None:
    data = store(Variable("MokList", SHIM, 3, b"12345"), Variable("B", SHIM, 3, b"x"))
    at = 72 + 28
    assert struct.unpack_from("<HBBI", data, at) == (0x55AA, 0x3F, 0, 3)
    name_size, data_size = struct.unpack_from("<II", data, at + 36)
    assert (name_size, data_size) == (16, 5)
    assert data[at + 44:at + 60] == SHIM.bytes_le
    assert data[at + 60:at + 81] == "MokList\0".encode("utf-16-le") + b"12345"
    assert struct.unpack_from("<H", data, at + 84) == (0x55AA,), "the next one is aligned to four bytes"


@pytest.mark.parametrize(("data", "message"), [
    (bytes(4096), "do not begin with a firmware volume"),
    (store()[:72] + bytes(200), "no store of authenticated variables"),
])
def test_other_flashes_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(LabError, match=message):
        efivars.variables(data)


def test_a_full_store_is_refused() -> None:
    with pytest.raises(LabError, match="MokList of 200 bytes does not fit"):
        efivars.with_variable(store(size=256), Variable("MokList", SHIM, 3, bytes(200)))


def test_machine_owner_keys() -> None:
    data = efivars.with_machine_owner_keys(efivars.with_machine_owner_keys(store(), [DER]), [DER + b"2"])
    (variable,) = efivars.variables(data)
    assert (variable.name, variable.vendor, variable.attributes) == ("MokList", SHIM, 3), "no access at run time"
    certificates, at = [], 0
    while at < len(variable.data):
        kind, size, header, entry = struct.unpack_from("<16sIII", variable.data, at)
        assert kind == uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072").bytes_le
        assert (header, entry) == (0, size - 28)
        certificates.append(variable.data[at + 28 + 16:at + size])
        at += size
    assert certificates == [DER, DER + b"2"]


@pytest.mark.parametrize("data", [DER, PEM, b"\n" + PEM])
def test_certificates(data: bytes) -> None:
    assert efivars.certificate_der(data, "key.pem") == DER


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", PEM.replace(b"CERTIFICATE", b"PRIVATE KEY"),
                                  b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_no_certificates(data: bytes) -> None:
    with pytest.raises(UsageError, match=r"key.pem is no X.509 certificate in PEM or DER"):
        efivars.certificate_der(data, "key.pem")


@pytest.mark.parametrize(("arguments", "message"), [
    (["start", "--boot", "firmware", "--enrol", "{certificate}"], "add --secure-boot"),
    (["start", "--boot", "firmware", "--secure-boot", "--enrol", "{missing}"], "cannot be read"),
    (["start", "--boot", "firmware", "--secure-boot", "--enrol", "{text}"], "is no X.509 certificate"),
    (["start", "--secure-boot"], "add --boot firmware"),
    (["start", "--boot", "bios"], "There is no boot 'bios'"),
    (["hold", "nobody", "0", "vfio"], "There is no lab 'nobody'"),
])
def test_bad_input_starts_nothing(arguments: list[str], message: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("NVGRACE_LAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "certificate").write_bytes(PEM)
    (tmp_path / "text").write_text("no certificate")
    files = {name: tmp_path / name for name in ("certificate", "text", "missing")}
    assert main([word.format(**files) for word in arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "cache").exists()


def test_the_file_is_found_wherever_its_pieces_are(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    content = placeholder.content()
    half = placeholder.SIZE // 2
    with disk.open("wb") as handle:
        handle.truncate(64 << 20)
        for at, data in ((1 << 20, content), (32 << 20, content[half:]), (48 << 20, content[:half])):
            handle.seek(at)
            handle.write(data)
        # Its name in some other file is not a piece of it.
        handle.seek((60 << 20) + 17)
        handle.write(placeholder.MARK + b"00000003")
    assert placeholder.find(disk) == [Run(1 << 20, 0, placeholder.SIZE), Run(32 << 20, half, half),
                                      Run(48 << 20, 0, half)]


def test_a_disk_that_lacks_a_piece(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4096) + placeholder.content()[SECTOR:])
    with pytest.raises(LabError, match="lacks 1 of the 128 sectors"):
        placeholder.find(disk)


@pytest.mark.parametrize(("sectors", "runs"), [
    ([], []),
    ([(512, 0), (1024, 512)], [Run(512, 0, 1024)]),
    ([(1024, 512), (512, 0)], [Run(512, 0, 1024)]),
    ([(512, 512), (1024, 0)], [Run(512, 512, 512), Run(1024, 0, 512)]),
    ([(512, 0), (2048, 512)], [Run(512, 0, 512), Run(2048, 512, 512)]),
])
def test_joined(sectors: list[tuple[int, int]], runs: list[Run]) -> None:
    assert placeholder.joined(sectors) == runs


def test_filled() -> None:
    assert placeholder.filled(b"tables") == b"tables" + bytes(placeholder.SIZE - 6)
    with pytest.raises(LabError, match="65537 bytes and the disk has room for 65536"):
        placeholder.filled(bytes(placeholder.SIZE + 1))


def test_a_sparse_copy_is_the_same_and_sparse(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as handle:
        handle.truncate(64 << 20)
        for at in (0, 20 << 20):
            handle.seek(at)
            handle.write(b"data" * 5000)
    with target.open("wb") as handle:
        handle.truncate(80 << 20)
    bootdisk.copy_sparse(source, target, 1 << 20)
    assert target.read_bytes() == bytes(1 << 20) + source.read_bytes() + bytes(15 << 20)
    assert target.stat().st_blocks * 512 < 1 << 20


def test_partitions() -> None:
    lines = bootdisk.partition_table(8 << 30).splitlines()
    assert lines[1:] == ["start=2048, size=1048576, type=uefi, name=esp",
                         "start=1050624, size=16777216, type=linux, name=root"]


def test_the_disk_follows_its_inputs(tmp_path: Path) -> None:
    cache, grub = Cache(tmp_path), recipe.LOADERS["grub"]
    arm, amd = recipe.ARCHES["arm64"], recipe.ARCHES["amd64"]
    new, old = recipe.KERNELS["7.3"], recipe.KERNELS["6.12"]
    image = tmp_path / "image-x-1"
    entries = {bootdisk.entry(cache, *rest) for rest in (
        (image, arm, new, grub), (image, amd, new, grub), (image, arm, old, grub),
        (image, arm, new, recipe.LOADERS["systemd-boot"]), (tmp_path / "image-x-2", arm, new, grub))}
    assert len(entries) == 5
    assert {path.parent for path in entries} == {tmp_path}


@pytest.mark.parametrize(("kernel", "second"), [("7.3", "/trixie"), ("6.12", "/trixie-backports"), ("6.1", None)])
def test_what_lies_on_the_shelves(kernel: str, second: str | None) -> None:
    shelves = recipe.shelves(recipe.ARCHES["arm64"], recipe.KERNELS[kernel])
    if second is None:
        assert shelves == {}
        return
    assert shelves["kernel"] == (f"linux-image-arm64{second}", f"linux-headers-arm64{second}")
    assert "grub-efi-arm64-signed" in shelves["grub"]
    assert "systemd-boot" in shelves["systemd-boot"]
    options = recipe.shelf_options(recipe.ARCHES["arm64"], recipe.KERNELS[kernel])
    assert len(options) == len(shelves) == 3


def test_a_shelf_is_filled_by_the_apt_of_the_image(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "apt-get").write_text('#!/bin/sh\n'
                                   'for word; do case $word in Dir::Cache::Archives=*) d=${word#*=};; esac; done\n'
                                   'echo "$APT_CONFIG" "$@" > "$d/one.deb"; mkdir "$d/partial"; touch "$d/lock"\n')
    (tools / "apt-get").chmod(0o755)
    subprocess.run([recipe.ASSETS / "stock.sh", tmp_path / "root", "grub", "a", "b"], check=True,
                   env={"PATH": f"{tools}:{os.environ['PATH']}", "MMDEBSTRAP_APT_CONFIG": "/its/apt.conf"})
    shelf = tmp_path / "root/usr/share/nvgrace-lab/packages/grub"
    assert [path.name for path in shelf.iterdir()] == ["one.deb"]
    said = (shelf / "one.deb").read_text().split()
    assert (said[0], said[-2:]) == ("/its/apt.conf", ["a", "b"])


HEALTHY = """@@ iomem
@@ kvm
present
@@ libvirt
<domain>kvm</domain>
@@ initiators

@@ distance
10
@@ properties
@@ kernel
7.3.4+deb13-amd64
@@ loader
grub
@@ secure-boot
   1
@@ lockdown
none [integrity] confidentiality
@@ functions
0000:00:10.0 0x10de:0x26b1 7
0000:00:10.1 0x10de:0x22ba 7
"""


@pytest.mark.parametrize(("old", "new", "failing"), [
    ("grub", "grub", []),
    ("grub", "systemd-boot", ["boot loader"]),
    ("   1", "   0", ["Secure Boot"]),
    ("   1\n", "", ["Secure Boot"]),
    ("none [integrity]", "[none] integrity", ["lockdown"]),
    ("0x22ba 7", "0x22ba 8", ["gpu0-audio IOMMU group"]),
    ("0000:00:10.1", "0000:00:10.2", ["gpu0-audio function"]),
    (" 7\n", " none\n", ["gpu0 IOMMU group"]),
    ("@@ properties\n", "@@ properties\n/sys/firmware/acpi/tables/SSDT2\n", ["ACPI properties"]),
])
def test_check_finds(old: str, new: str, failing: list[str]) -> None:
    results = judge(spec(secure_boot=True, product="rtx-audio"), sections(HEALTHY.replace(old, new)))
    assert [result.name for result in results if not result.passed] == failing


def test_a_locked_down_kernel_has_no_properties() -> None:
    for secure_boot in (False, True):
        wanted = spec(secure_boot=secure_boot)
        assert (wanted.firmware_memory(wanted.gpus[0]) is None) == secure_boot


def test_runs_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"runs": [{"disk": 512, "file": 0, "length": 1024}]}))
    assert bootdisk.runs(tmp_path) == [Run(512, 0, 1024)]


@pytest.mark.parametrize(("wanted", "tables"), [
    (spec("arm64"), [b"SSDT"]),
    (spec("amd64"), [b"SSDT", b"DSDT"]),
    # Nothing for firmware to tell, and nobody who would listen.
    (spec(product="h100-pcie"), []),
    (spec("arm64", secure_boot=True), []),
])
def test_tables_for_the_kernel(wanted: Spec, tables: list[bytes], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(lifecycle, "_read_dsdt", lambda lab, emulator: aml.table(b"DSDT", b"BXPC", b""))
    lab = Lab(wanted, Files(tmp_path, tmp_path), RUNNING, 2222, TCG, tmp_path, {})
    archive = lifecycle._acpi_archive(lab, Emulator(Path("/")))
    assert [table for table in (b"SSDT", b"DSDT") if table in archive] == tables
    assert bool(archive) == bool(tables)


def test_variables_of_a_new_host(tmp_path: Path) -> None:
    template = tmp_path / "usr/share/OVMF/OVMF_VARS_4M.ms.fd"
    template.parent.mkdir(parents=True)
    template.write_bytes(store(Variable("PK", GLOBAL, 39, b"key")))
    lab = Lab(spec(secure_boot=True), Files(tmp_path, tmp_path), RUNNING, 2222, TCG, tmp_path, {})
    lifecycle._make_variables(lab, Emulator(tmp_path), [])
    assert lab.files.variables.read_bytes() == template.read_bytes()
    lifecycle._make_variables(lab, Emulator(tmp_path), [DER])
    assert [variable.name for variable in efivars.variables(lab.files.variables.read_bytes())] == ["PK", "MokList"]


def test_only_a_host_with_secure_boot_gets_a_certificate(tmp_path: Path, monkeypatch) -> None:
    cache = Cache(tmp_path)
    directory = state.lab_directory(cache, "grace")
    directory.mkdir(parents=True)
    state.save(Lab(spec(), Files(directory, tmp_path), RUNNING, 2222, TCG, tmp_path, {}, boot=tmp_path / "boot"))
    with pytest.raises(UsageError, match="start it with --secure-boot"):
        lifecycle.reboot(cache, "grace", [DER])
    assert state.load(cache, "grace").spec == spec()
    assert tmp_path / "boot" in state.images_in_use(cache)


def test_reset_tells_the_machine_and_asks_nobody(tmp_path: Path, monkeypatch) -> None:
    cache = Cache(tmp_path)
    directory = state.lab_directory(cache, "grace")
    directory.mkdir(parents=True)
    lab = Lab(spec(), Files(directory, tmp_path), RUNNING, 2222, TCG, tmp_path, {})
    state.save(lab)
    monkeypatch.setattr(Lab, "state", lambda _lab: RUNNING)
    told = []
    monkeypatch.setattr(lifecycle.qmp, "execute", lambda path, command: told.append((path, command)))
    lifecycle.reset(cache, "grace")
    assert told == [(lab.files.qmp, "system_reset")]
