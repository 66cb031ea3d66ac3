# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads DKMS, the compiler, libvirt and QEMU: what is installed and what it can do."""

from __future__ import annotations

import json
import re
from typing import Any, Optional

from .._core.errors import CommandError
from .._core.host import Host
from .facts import Libvirt, LibvirtFeatures, Program, QemuFeatures

# A virtual machine monitor on an emulated host needs seconds, a hung one must not hold a whole play.
_QUICK = 60.0
_CONNECT = 90.0
_DKMS_VERSION = re.compile(r'^\s*echo \$?"dkms-(\d[\w.]*)"', re.MULTILINE)
_LIBRARY_DIRECTORIES = ("/usr/lib/aarch64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib")
_SCHEMAS = "/usr/share/libvirt/schemas"
_DAEMON_PIDS = ("/run/libvirtd.pid", "/run/virtqemud.pid", "/run/libvirt/libvirtd.pid")
_QEMU_ELSEWHERE = ("/usr/libexec/qemu-kvm", "/usr/lib/qemu-kvm")
_QMP_QUESTIONS: tuple[dict[str, Any], ...] = (
    {"execute": "qmp_capabilities"},
    {"execute": "query-version"},
    {"execute": "qom-list-types", "arguments": {"implements": "user-creatable"}},
    {"execute": "qom-list-properties", "arguments": {"typename": "virt-machine"}},
    {"execute": "device-list-properties", "arguments": {"typename": "arm-smmuv3"}},
    {"execute": "quit"},
)

Version = tuple[int, ...]


def parse_version(text: Optional[str]) -> Version:
    """The numbers of "11.3.0"; empty for None, so that it compares as older than everything."""
    match = re.match(r"\d+(?:\.\d+)*", text or "")
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def read_dkms(host: Host) -> Program:
    """DKMS and its version, from the script itself: its own answer takes it dozens of processes."""
    path = host.which("dkms")
    match = _DKMS_VERSION.search(host.read_text(path) or "") if path else None
    if match:
        return Program(True, match.group(1), path)
    return _program(host, "dkms", ("--version",), r"dkms-(\d[\w.]*)")


def read_compiler(host: Host) -> Program:
    """The default C compiler, which is what kbuild and DKMS call unless told otherwise."""
    return _program(host, "gcc", ("-dumpfullversion",), r"(\d[\w.]*)")


def read_depmod(host: Host) -> Program:
    """depmod; its version is never needed, so it is not started."""
    path = host.which("depmod")
    return Program(path is not None, None, path)


def _program(host: Host, name: str, arguments: tuple[str, ...], pattern: str) -> Program:
    path = host.which(name)
    return Program(path is not None, None if path is None else _version_of(host, path, arguments, pattern), path)


def _version_of(host: Host, path: str, arguments: tuple[str, ...], pattern: str) -> Optional[str]:
    match = re.search(pattern, _output(host, path, *arguments))
    return match.group(1) if match else None


def _output(host: Host, *argv: str) -> str:
    """Standard output and error of a program that is asked for help; nothing where it cannot be started."""
    try:
        result = host.run(argv, timeout=_QUICK, ok=())
    except CommandError:
        return ""
    return result.stdout + result.stderr


def read_libvirt(host: Host) -> Libvirt:
    """libvirt's version, and whether qemu:///system answers.

    Only the connection is tried: ``virsh version`` would make the daemon start QEMU to learn what it can do.
    """
    if host.which("virsh") is None:
        return Libvirt(False, None, False, False, "virsh is not installed")
    version = _library_version(host) or _version_of(host, "virsh", ("--version",), r"(\d[\w.]*)")
    try:
        result = host.run(("virsh", "-c", "qemu:///system", "uri"), timeout=_CONNECT, ok=())
    except CommandError as error:
        return Libvirt(True, version, _daemon_running(host), False, error.message)
    if result.rc != 0:
        return Libvirt(True, version, _daemon_running(host), False, result.last_line())
    return Libvirt(True, version, True, True, None)


def _library_version(host: Host) -> Optional[str]:
    """libvirt's build names the library 0.(1000 * major + minor).micro, which costs no program start to read."""
    for directory in _LIBRARY_DIRECTORIES:
        match = re.fullmatch(r"libvirt\.so\.0\.(\d+)\.(\d+)", host.readlink_name(f"{directory}/libvirt.so.0") or "")
        if match and int(match.group(1)) >= 1000:
            major, minor = divmod(int(match.group(1)), 1000)
            return f"{major}.{minor}.{match.group(2)}"
    return None


def _daemon_running(host: Host) -> bool:
    return any(_alive(host, path) for path in _DAEMON_PIDS)


def _alive(host: Host, path: str) -> bool:
    pid = host.read_text(path)
    return pid is not None and pid.isdigit() and host.exists(f"/proc/{pid}")


def read_libvirt_features(host: Host, version: Optional[str]) -> LibvirtFeatures:
    """Elements that the schema knows. libvirt drops what it does not know without a word, so the schema decides and
    the version only where the schema of an older release has the same words."""
    domain = host.read_text(f"{_SCHEMAS}/domaincommon.rng") or ""
    cpu = host.read_text(f"{_SCHEMAS}/cputypes.rng") or ""
    number = parse_version(version)
    return LibvirtFeatures(
        ras='<element name="ras">' in domain,
        clusters='<attribute name="clusters">' in cpu,
        iommu_driver_accel='name="ssidsize"' in domain,
        iommu_driver_cmdqv='name="cmdqv"' in domain,
        # "nodeset" has always been an attribute of other elements.
        acpi_nodeset=number >= (11, 8),
        iommufd='name="iommufd"' in domain,
        # The element is old; the driver accepts it for the machine type "virt" since 11.6.
        pcihole64_virt=number >= (11, 6),
    )


def find_qemu(host: Host, machine: str) -> Optional[str]:
    """Path of the emulator of this machine's own architecture."""
    return host.which(f"qemu-system-{machine}") or next(
        (candidate for candidate in _QEMU_ELSEWHERE if host.exists(candidate)), None)


def name_qemu(host: Host, machine: str) -> tuple[Program, Optional[QemuFeatures]]:
    """The emulator of this machine's own architecture and its version, without its features."""
    path = find_qemu(host, machine)
    if path is None:
        return Program(False, None, None), None
    return Program(True, _version_of(host, path, ("--version",), r"version (\d[\w.]*)"), path), None


def probe_qemu(host: Host, machine: str) -> tuple[Program, Optional[QemuFeatures]]:
    """The emulator and what it says that it has, which NVIDIA's forks and backports cannot falsify as they can a
    version. None where there is no QEMU.

    One start answers all questions: QEMU without a machine, asked over its QMP monitor.
    """
    path = find_qemu(host, machine)
    if path is None:
        return Program(False, None, None), None
    version, objects, board, smmu = _ask_qemu(host, path)
    # Before 10.1 an SMMUv3 is part of the board: its type exists, but a user cannot create one.
    if parse_version(version) < (10, 1):
        smmu = frozenset()
    return Program(True, version, path), QemuFeatures(
        highmem_mmio_size="highmem-mmio-size" in board,
        acpi_generic_initiator="acpi-generic-initiator" in objects,
        arm_smmuv3_device="primary-bus" in smmu,
        arm_smmuv3_accel="accel" in smmu,
        arm_smmuv3_cmdqv="cmdqv" in smmu,
        iommufd="iommufd" in objects,
        pasid_fork="pasid" in smmu,
        egm_fork="acpi-egm-memory" in objects,
    )


def _ask_qemu(host: Host, path: str) -> tuple[Optional[str], frozenset[str], frozenset[str], frozenset[str]]:
    """Version, and the names of: objects that users can create, properties of the board "virt", those of an SMMUv3.

    A type that this QEMU does not know is answered with an error, which counts as no names.
    """
    questions = "".join(json.dumps(question) + "\n" for question in _QMP_QUESTIONS)
    try:
        output = host.run((path, "-machine", "none", "-nodefaults", "-display", "none", "-qmp", "stdio"),
                          timeout=_QUICK, ok=(), stdin=questions).stdout
    except CommandError:
        output = ""
    answers = [answer for answer in map(_parse_answer, output.splitlines())
               if "return" in answer or "error" in answer]
    version = names = None
    # the answer to "quit" may be cut off by its effect
    if len(answers) >= len(_QMP_QUESTIONS) - 1:
        version = answers[1].get("return", {}).get("qemu")
        names = [frozenset(item["name"] for item in answer.get("return", ())) for answer in answers[2:5]]
    text = f"{version['major']}.{version['minor']}.{version['micro']}" if version else None
    nothing: frozenset[str] = frozenset()
    objects, board, smmu = names or (nothing, nothing, nothing)
    return text, objects, board, smmu


def _parse_answer(line: str) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
