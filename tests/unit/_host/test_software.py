# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""DKMS, compiler, libvirt and QEMU, asked with as few program starts as possible."""

from __future__ import annotations

import json

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._host import software
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.facts import Program

OBJECTS = ("acpi-generic-initiator", "iommufd", "memory-backend-ram")
FORK = ("acpi-egm-memory", "acpi-generic-initiator")
BOARD = ("highmem-mmio", "highmem-mmio-size")
SMMU = ("accel", "ssidsize", "primary-bus")
NEWER_SMMU = (*SMMU, "cmdqv")
FORK_SMMU = ("accel", "pasid", "primary-bus")


def _qmp(version, objects=None, board=None, smmu=None):
    """The lines of QEMU's monitor: greeting, answers in the order of the questions, an event, the answer to quit."""
    error = {"error": {"class": "DeviceNotFound", "desc": "no such type"}}
    numbers = dict(zip(("major", "minor", "micro"), map(int, version.split("."))))
    answers = [{"return": [{"name": name} for name in names]} if names is not None else error
               for names in (objects, board, smmu)]
    lines = [{"QMP": {"version": {"qemu": numbers}}}, {"return": {}},
             {"return": {"qemu": numbers, "package": "Debian"}}, *answers,
             {"event": "SHUTDOWN", "data": {"guest": False}}, {"return": {}}]
    return "\n".join(json.dumps(line) for line in lines) + "\n"


@pytest.mark.parametrize(("text", "expected"), [
    ("11.3.0", (11, 3, 0)), ("10.1.0+nvidia5", (10, 1, 0)), ("12", (12,)), ("none", ()), (None, ()),
])
def test_parse_version(text, expected):
    assert software.parse_version(text) == expected


@pytest.mark.parametrize(("read", "program", "script", "version"), [
    (software.read_dkms, "dkms", "x=3.2.2; echo dkms-$x", "3.2.2"),
    (software.read_compiler, "gcc", "echo 14.2.0", "14.2.0"),
    (software.read_compiler, "gcc", "exit 1", None),
])
def test_versions_of_programs(tree, read, program, script, version):
    assert read(tree.host) == Program(False, None, None)
    tree.program(program, script)
    assert read(tree.host) == Program(True, version, f"/usr/sbin/{program}")


def test_depmod_is_not_started(tree):
    tree.program("depmod")
    assert software.read_depmod(tree.host) == Program(True, None, "/usr/sbin/depmod")
    assert tree.calls() == []


@pytest.mark.parametrize("line", ['    echo $"dkms-3.0.10"', '            echo "dkms-3.0.10"'])
def test_dkms_version_is_read_from_its_script(tree, line):
    tree.program("dkms", f'echo "DKMS (dkms-9.9) make.log"\n{line}')
    assert software.read_dkms(tree.host).version == "3.0.10"
    assert tree.calls() == []


def test_libvirt_missing(tree):
    found = software.read_libvirt(tree.host)
    assert (found.present, found.uri_ok, found.reason) == (False, False, "virsh is not installed")


@pytest.mark.parametrize(("library", "version", "calls"), [
    ("libvirt.so.0.11003.0", "11.3.0", 1), ("libvirt.so.0.9000.2", "9.0.2", 1), ("libvirt.so.0.9.13", "12.0.0", 2),
    (None, "12.0.0", 2),
])
def test_libvirt_that_answers(tree, library, version, calls):
    tree.program("virsh", 'test "$1" = --version && echo 12.0.0 || echo qemu:///system')
    if library is not None:
        tree.write(f"/usr/lib64/{library}")
        (tree.root / "usr/lib64/libvirt.so.0").symlink_to(library)
    found = software.read_libvirt(tree.host)
    assert (found.version, found.daemon_running, found.uri_ok, found.reason) == (version, True, True, None)
    assert tree.calls()[-1] == "virsh -c qemu:///system uri"
    assert len(tree.calls()) == calls


@pytest.mark.parametrize(("pid", "running"), [("42", True), ("43", False), ("x", False), (None, False)])
def test_libvirt_that_does_not_answer(tree, pid, running):
    tree.program("virsh", 'test "$1" = --version && echo 12.0.0 && exit 0; echo "error: no socket" >&2; exit 1')
    tree.write("/proc/42/x")
    if pid is not None:
        tree.write("/run/libvirtd.pid", pid)
    found = software.read_libvirt(tree.host)
    assert (found.present, found.version, found.uri_ok) == (True, "12.0.0", False)
    assert (found.daemon_running, found.reason) == (running, "error: no socket")


def test_libvirt_that_hangs(tree, monkeypatch):
    monkeypatch.setattr(software, "_CONNECT", 0.2)
    tree.program("virsh", 'test "$1" = --version || exec sleep 5')
    found = software.read_libvirt(tree.host)
    assert (found.present, found.uri_ok) == (True, False)
    assert "did not end within" in (found.reason or "")


@pytest.mark.parametrize(("version", "domain", "cpu", "expected"), [
    ("9.0.0", "", "", (False, False, False, False, False, False, False)),
    ("11.3.0", '<element name="ras">', '<attribute name="clusters">', (True, True, False, False, False, False, False)),
    ("11.8.0", "", "", (False, False, False, False, True, False, True)),
    ("12.8.0", '<element name="ras"><attribute name="iommufd"><attribute name="ssidsize">', "",
     (True, False, True, False, True, True, True)),
    ("12.8.0", '<attribute name="cmdqv">', "", (False, False, False, True, True, False, True)),
    (None, "", "", (False, False, False, False, False, False, False)),
])
def test_libvirt_features(tree, version, domain, cpu, expected):
    tree.write("/usr/share/libvirt/schemas/domaincommon.rng", domain)
    tree.write("/usr/share/libvirt/schemas/cputypes.rng", cpu)
    found = software.read_libvirt_features(tree.host, version)
    assert (found.ras, found.clusters, found.iommu_driver_accel, found.iommu_driver_cmdqv, found.acpi_nodeset,
            found.iommufd, found.pcihole64_virt) == expected


def test_qemu_of_the_hosts_own_architecture(tree):
    tree.program("qemu-system-x86_64", "echo QEMU emulator version 9.9")
    tree.program("qemu-system-aarch64", "echo QEMU emulator version 8.2.2 '(Debian)'")
    assert software.name_qemu(tree.host, "aarch64")[0] == Program(True, "8.2.2", "/usr/sbin/qemu-system-aarch64")


def test_qemu_elsewhere_or_missing(tree):
    assert software.name_qemu(tree.host, "x86_64")[0] == Program(False, None, None)
    tree.program("../libexec/qemu-kvm", "echo QEMU emulator version 9.1.0")
    assert software.name_qemu(tree.host, "x86_64")[0] == Program(True, "9.1.0", "/usr/libexec/qemu-kvm")


@pytest.mark.parametrize(("version", "answers", "present"), [
    ("10.0.13", (OBJECTS, BOARD, SMMU), {"highmem_mmio_size", "acpi_generic_initiator", "iommufd"}),
    ("8.2.2", ((), ("highmem-mmio",), None), set()),
    ("11.1.2", (OBJECTS, BOARD, SMMU), {"highmem_mmio_size", "acpi_generic_initiator", "iommufd",
                                        "arm_smmuv3_device", "arm_smmuv3_accel"}),
    ("11.1.2", (OBJECTS, BOARD, NEWER_SMMU), {"highmem_mmio_size", "acpi_generic_initiator", "iommufd",
                                              "arm_smmuv3_device", "arm_smmuv3_accel", "arm_smmuv3_cmdqv"}),
    ("10.1.0", (FORK, BOARD, FORK_SMMU), {"highmem_mmio_size", "acpi_generic_initiator", "egm_fork",
                                          "arm_smmuv3_device", "arm_smmuv3_accel", "pasid_fork"}),
    ("11.1.2", (OBJECTS, None, None), {"acpi_generic_initiator", "iommufd"}),
])
def test_qemu_answers_all_questions_in_one_start(tree, version, answers, present):
    tree.write("/answers", _qmp(version, *answers))
    tree.program("qemu-system-aarch64", f"cat > {tree.root}/questions; cat {tree.root}/answers")
    qemu, features = software.probe_qemu(tree.host, "aarch64")
    assert qemu == Program(True, version, "/usr/sbin/qemu-system-aarch64")
    assert {name for name, value in vars(features).items() if value} == present
    assert tree.calls() == ["qemu-system-aarch64 -machine none -nodefaults -display none -qmp stdio"]
    questions = [json.loads(line)["execute"] for line in tree.read("/questions").splitlines()]
    assert (questions[0], questions[-1], len(questions)) == ("qmp_capabilities", "quit", 6)


def test_answer_to_quit_may_be_missing(tree):
    tree.write("/answers", "\n".join(_qmp("10.0.13", OBJECTS, BOARD, SMMU).splitlines()[:-1]))
    tree.program("qemu-system-aarch64", f"cat > /dev/null; cat {tree.root}/answers")
    qemu, features = software.probe_qemu(tree.host, "aarch64")
    assert (qemu.version, features.highmem_mmio_size) == ("10.0.13", True)


@pytest.mark.parametrize("script", ["exit 1", "echo qemu: bad; echo '[1]'; exec sleep 5", "cat > /dev/null"])
def test_qemu_that_does_not_answer_has_nothing(tree, monkeypatch, script):
    monkeypatch.setattr(software, "_QUICK", 0.5)
    tree.program("qemu-system-x86_64", script)
    qemu, features = software.probe_qemu(tree.host, "x86_64")
    assert (qemu.present, qemu.version) == (True, None)
    assert not any(vars(features).values())


def test_no_qemu_no_features(tree):
    assert software.probe_qemu(tree.host, "aarch64") == (Program(False, None, None), None)


def test_program_that_cannot_start_tells_nothing(tree):
    tree.write("/usr/sbin/dkms", "not a program")
    (tree.root / "usr/sbin/dkms").chmod(0o755)
    assert software.read_dkms(tree.host) == Program(True, None, "/usr/sbin/dkms")
