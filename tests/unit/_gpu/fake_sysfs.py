# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host in a directory whose sysfs answers as the kernel does: unbind, bind, drivers_probe, driver_override.

Writes come from forked children, so all state is in the directory and none in memory.
"""

from __future__ import annotations

import errno
import fnmatch
import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import CommandError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.host import CommandResult, Host
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.options import DriverOptions

KERNEL = "7.3.4-test"
VARIANT = "nvgrace_gpu_vfio_pci"
ALIASES = """\
alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci
alias pci:v000010DEd*sv*sd*bc03sc*i* nouveau
alias vfio_pci:v000010DEd00002342sv*sd*bc*sc*i* nvgrace_gpu_vfio_pci
alias vfio_pci:v000010DEd00002941sv*sd*bc*sc*i* nvgrace_gpu_vfio_pci
"""
DRIVER_OF_MODULE = {"vfio_pci": "vfio-pci", VARIANT: VARIANT, "nouveau": "nouveau", "snd_hda_intel": "snd_hda_intel",
                    "odd_module": "Odd-Driver", "nvidia": "nvidia", "nvidia_nvswitch": "nvidia-nvswitch",
                    "xhci_pci": "xhci_hcd", "i2c_nvidia_gpu": "nvidia-gpu", "pcieport": "pcieport",
                    "mlx5_core": "mlx5_core", "nvme": "nvme"}
VFIO_MODULES = ("vfio_pci", VARIANT, "odd_module")
GROUPS = {"vfio": 990, "kvm": 104}
_TOKEN = re.compile(r'(\w+(?:\{[^}]*\})?)(==|!=|\+=|=)"([^"]*)"')


class FakeHost(Host):
    """``refuses``: drivers whose probe fails. ``blocks``: drivers whose unbind never ends. ``late_groups``: IOMMU
    groups that come with the first bind."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.base = root
        self.refuses: set[str] = set()
        self.blocks: set[str] = set()
        self.late_groups: dict[str, tuple[int, list[str]]] = {}
        self.missing_modules: set[str] = set()
        self.answers: dict[str, str] = {}
        self.udev_database: dict[str, dict[str, str]] = {}
        self.write("/proc/sys/kernel/osrelease", KERNEL + "\n")
        self.write("/proc/sys/kernel/random/boot_id", "11111111-2222\n")
        self.write(f"/lib/modules/{KERNEL}/modules.alias", ALIASES)
        self.write("/sys/class/iommu/smmu3/x")
        self.write("/sys/bus/pci/drivers_probe")

    # --- building ---
    def write(self, path: str, content: str | bytes = "") -> None:
        real = self.base / path.lstrip("/")
        real.parent.mkdir(parents=True, exist_ok=True)
        real.write_bytes(content if isinstance(content, bytes) else content.encode())

    def read(self, path: str) -> str:
        return (self.base / path.lstrip("/")).read_text()

    def has(self, path: str) -> bool:
        return (self.base / path.lstrip("/")).exists()

    def link(self, path: str, target: str) -> None:
        real = self.base / path.lstrip("/")
        real.parent.mkdir(parents=True, exist_ok=True)
        if real.is_symlink():
            real.unlink()
        real.symlink_to(target)

    def add_function(self, address: str, device: str = "2342", vendor: str = "10de", class_code: str = "030200",
                     group: Optional[int] = None, driver: Optional[str] = None, resource: str = "",
                     config: bytes = b"", node: int = 0) -> None:
        base = f"/sys/bus/pci/devices/{address}"
        self.write(f"{base}/vendor", f"0x{vendor}\n")
        self.write(f"{base}/device", f"0x{device}\n")
        self.write(f"{base}/class", f"0x{class_code}\n")
        self.write(f"{base}/subsystem_vendor", "0x10de\n")
        self.write(f"{base}/subsystem_device", "0x16eb\n")
        self.write(f"{base}/numa_node", f"{node}\n")
        self.write(f"{base}/driver_override", "(null)\n")
        self.write(f"{base}/reset_method", "flr bus\n")
        self.write(f"{base}/resource", resource)
        self.write(f"{base}/config", config)
        code = class_code.upper()
        self.write(f"{base}/modalias", f"pci:v0000{vendor.upper()}d0000{device.upper()}sv000010DEsd000016EB"
                                       f"bc{code[:2]}sc{code[2:4]}i{code[4:]}\n")
        if group is not None:
            self.set_group(address, group)
        if driver is not None:
            self.load(next(module for module, name in DRIVER_OF_MODULE.items() if name == driver))
            self._attach(address, driver)

    def set_group(self, address: str, group: int) -> None:
        self.link(f"/sys/bus/pci/devices/{address}/iommu_group", f"../../../kernel/iommu_groups/{group}")
        self.write(f"/sys/kernel/iommu_groups/{group}/devices/{address}")
        self.write(f"/dev/vfio/{group}")

    def add_process(self, pid: int, command: str, paths: Sequence[str], cmdline: bytes = b"") -> None:
        self.write(f"/proc/{pid}/comm", command + "\n")
        self.write(f"/proc/{pid}/cmdline", cmdline)
        for number, path in enumerate(paths):
            self.link(f"/proc/{pid}/fd/{number}", path)

    def end_process(self, pid: int) -> None:
        shutil.rmtree(self.base / f"proc/{pid}")

    def load(self, module: str) -> None:
        driver = DRIVER_OF_MODULE[module]
        self.link(f"/sys/module/{module}/drivers/pci:{driver}", f"../../../bus/pci/drivers/{driver}")
        self.write(f"/sys/module/{module}/srcversion", f"SRC{module[:4].upper()}\n")
        self.write(f"/sys/bus/pci/drivers/{driver}/bind")
        self.link(f"/sys/bus/pci/drivers/{driver}/module", f"../../../../module/{module}")

    def with_udev(self) -> None:
        self.write("/usr/bin/udevadm")
        os.chmod(self.base / "usr/bin/udevadm", 0o755)
        self.write("/run/udev/control")

    # --- looking ---
    def driver(self, address: str) -> Optional[str]:
        return self.readlink_name(f"/sys/bus/pci/devices/{address}/driver")

    def override(self, address: str) -> str:
        # (null) where a captured tree has the identity of a function alone
        return self.read_text(f"/sys/bus/pci/devices/{address}/driver_override") or "(null)"

    def log(self) -> list[str]:
        return self.read("/log").splitlines() if self.has("/log") else []

    def manifest(self) -> dict[str, str]:
        """Everything that restoring must give back: files below /etc and /var, and the bindings."""
        found = {}
        for top in ("etc", "var"):
            for directory, _names, files in os.walk(self.base / top):
                for name in files:
                    path = Path(directory) / name
                    found[str(path.relative_to(self.base))] = path.read_bytes().hex()
        found["owners"] = json.dumps(self._owners(), sort_keys=True)
        for address in self.listdir("/sys/bus/pci/devices"):
            found[address] = f"{self.driver(address)} {self.override(address)}"
        return found

    # --- the kernel ---
    def write_sysfs(self, path: str, value: str) -> None:
        with open(self.base / "log", "a", encoding="ascii") as log:
            log.write(f"{path.rsplit('/', 1)[-1]} {path.split('/')[5] if 'devices' in path else ''} {value.strip()}\n")
        if path.endswith("/driver_override"):
            self.write(path, (value.strip() or "(null)") + "\n")
        elif path.endswith("/driver/unbind"):
            self._unbind(value)
        elif path.endswith("/drivers_probe"):
            self._probe(value)
        elif path.endswith("/bind"):
            self._bind(value, path.split("/")[-2])
        else:
            raise OSError(errno.ENOENT, "No such file or directory")

    def _unbind(self, address: str) -> None:
        driver = self.driver(address)
        if driver in self.blocks:
            time.sleep(60)
        directory = self.base / "sys/bus/pci/devices" / address
        (directory / "driver").unlink()
        for path in self._nodes(address):
            self._own(path, None)
        shutil.rmtree(directory / "vfio-dev", ignore_errors=True)

    def _probe(self, address: str) -> None:
        wanted = self.override(address)
        if self.driver(address) is None and wanted != "(null)" and self.has(f"/sys/bus/pci/drivers/{wanted}") \
                and wanted not in self.refuses:
            self._attach(address, wanted)

    def _bind(self, address: str, driver: str) -> None:
        if driver in self.refuses or self.override(address) not in ("(null)", driver):
            raise OSError(errno.ENODEV, "No such device")
        self._attach(address, driver)

    def _attach(self, address: str, driver: str) -> None:
        directory = f"/sys/bus/pci/devices/{address}"
        self.link(f"{directory}/driver", f"../../drivers/{driver}")
        if driver in [DRIVER_OF_MODULE[module] for module in VFIO_MODULES]:
            number = self.listdir("/sys/bus/pci/devices").index(address)
            self.write(f"{directory}/vfio-dev/vfio{number}/uevent")
            self.write(f"/dev/vfio/devices/vfio{number}")
        if address in self.late_groups:
            group, members = self.late_groups[address]
            for member in members:
                self.set_group(member, group)
        if self.which("udevadm"):
            for path in self._nodes(address):
                self._udev_node(path)

    # --- owners of device nodes, which a test that is not root cannot change ---
    def group_id(self, name: str) -> Optional[int]:
        return GROUPS.get(name)

    def owner_of(self, path: str) -> Optional[tuple[int, int]]:
        if not self.has(path):
            return None
        gid, mode = self._owners().get(path, (0, 0o600))
        return gid, mode

    def set_owner(self, path: str, gid: int, mode: int) -> None:
        self._own(path, (gid, mode))

    def _owners(self) -> dict[str, tuple[int, int]]:
        return json.loads(self.read("/owners")) if self.has("/owners") else {}  # type: ignore[no-any-return]

    def _own(self, path: str, owner: Optional[tuple[int, int]]) -> None:
        owners = self._owners()
        owners.pop(path, None)
        if owner is not None and tuple(owner) != (0, 0o600):
            owners[path] = owner
        self.write("/owners", json.dumps(owners))

    def _nodes(self, address: str) -> list[str]:
        devices = self.listdir(f"/sys/bus/pci/devices/{address}/vfio-dev")
        group = self.readlink_name(f"/sys/bus/pci/devices/{address}/iommu_group")
        return [f"/dev/vfio/devices/{device}" for device in devices] + ([f"/dev/vfio/{group}"] if group else [])

    # --- as much of udev as the rules of the collection need ---
    def _udev_rules(self) -> list[list[tuple[str, str, str]]]:
        directory = "/etc/udev/rules.d"
        return [_TOKEN.findall(line) for name in self.listdir(directory) if name.endswith(".rules")
                for line in (self.read_text(f"{directory}/{name}") or "").splitlines() if not line.startswith("#")]

    def _udev_node(self, path: str) -> None:
        """The add or change event of a VFIO node: root's alone, unless a rule says otherwise."""
        kernel = path.rsplit("/", 1)[1]
        cdev = "/devices/" in path
        parents = [address for address in self.listdir("/sys/bus/pci/devices")
                   if kernel in self.listdir(f"/sys/bus/pci/devices/{address}/vfio-dev")] if cdev else []
        gid, mode = 0, 0o600
        for rule in self._udev_rules():
            judged = {"SUBSYSTEM": lambda value: value == ("vfio-dev" if cdev else "vfio"),
                      "KERNELS": lambda value: value in parents,
                      "TEST": lambda value: self.lexists(value.replace("%k", kernel))}
            if all(judged[key](value) for key, operator, value in rule if operator == "==" and key in judged) \
                    and not any(operator == "==" and key not in judged for key, operator, _value in rule):
                assigned = {key: value for key, operator, value in rule if operator == "="}
                gid = GROUPS[assigned["GROUP"]] if "GROUP" in assigned else gid
                mode = int(assigned["MODE"], 8) if "MODE" in assigned else mode
        self._own(path, (gid, mode))

    def hotplug(self, address: str) -> None:
        """The add event of a PCI function that is in the tree already; udev keeps its properties."""
        base = f"/sys/bus/pci/devices/{address}"
        # of the event, as udev's: what the rules do to the driver is not seen in it
        driver, properties = self.driver(address) or "", dict[str, str]()
        database = self.udev_database.setdefault(address, {})
        for rule in self._udev_rules():
            judged = {"ACTION": "add", "SUBSYSTEM": "pci", "KERNEL": address, "DRIVER": driver,
                      "ATTR{vendor}": self.read(f"{base}/vendor").strip(),
                      "ATTR{device}": self.read(f"{base}/device").strip(),
                      **{f"ENV{{{key}}}": value for key, value in properties.items()}}
            conditions = [(judged.get(key, ""), operator == "==", value) for key, operator, value in rule
                          if operator in ("==", "!=")]
            if any((fnmatch.fnmatchcase(found, value)) != equal for found, equal, value in conditions):
                continue
            for key, _operator, value in [token for token in rule if token[1] not in ("==", "!=")]:
                if key == "ATTR{driver_override}":
                    self.write_sysfs(f"{base}/driver_override", value)
                elif key == "IMPORT{db}" and value in database:
                    properties[value] = database[value]
                elif key.startswith("ENV{"):
                    properties[key[4:-1]] = value
                elif key == "ATTR{driver/unbind}":
                    self.write_sysfs(f"{base}/driver/unbind", value)
                elif key == "ATTR{subsystem/drivers_probe}":
                    self.write_sysfs("/sys/bus/pci/drivers_probe", value)
                elif key == "RUN{builtin}":
                    self.load(value.split()[-1])
                    self._probe(address)  # a driver that registers takes what has its name as override
        database.update(properties)

    def run(self, argv: Sequence[str], timeout: float = 60, ok: Sequence[int] = (0,),
            cwd: Optional[str] = None) -> CommandResult:
        with open(self.base / "log", "a", encoding="ascii") as log:
            log.write(" ".join(argv) + "\n")
        if argv[:2] == ("udevadm", "trigger"):
            for word in argv:
                if word.startswith("--name-match="):
                    self._udev_node(word.partition("=")[2])
        if argv[0] == "modprobe":
            if argv[-1] in self.missing_modules or argv[-1] not in DRIVER_OF_MODULE:
                raise CommandError(f"{' '.join(argv)} failed with status 1: FATAL: Module {argv[-1]} not found.")
            if "--dry-run" not in argv:
                self.load(argv[-1])
        if self.answers.get(argv[0]) == "hangs":
            raise CommandError(f"{argv[0]} did not end within {timeout:.0f} seconds.")
        return CommandResult(tuple(argv), 0, self.answers.get(argv[0], ""), "")


RESOURCE_GH = "0x0000000011000000 0x0000000011ffffff 0x000000000014220c\n" + "0x0 0x0 0x0\n" * 12


def options(*addresses: str, **changes: Any) -> DriverOptions:
    """What gpu_driver is asked for: these GPUs, or with no address all that are on record."""
    values: dict[str, Any] = {"timeout": 5, **changes}
    return DriverOptions(gpus=[{"address": address} for address in addresses] or None, **values)


def grace_hopper(root: Path) -> FakeHost:
    """One GH200 with no driver, in a group of its own."""
    host = FakeHost(root)
    host.add_function("0009:01:00.0", group=11, resource=RESOURCE_GH)
    host.add_function("0000:00:02.0", device="100e", vendor="8086", class_code="020000", group=3)
    return host


def grace_blackwell(root: Path) -> FakeHost:
    """Four GB200 in the PCI domains 0008, 0009, 0018 and 0019."""
    host = FakeHost(root)
    for number, domain in enumerate(("0008", "0009", "0018", "0019")):
        host.add_function(f"{domain}:01:00.0", device="2941", group=20 + number, resource=RESOURCE_GH)
        host.add_function(f"{domain}:00:00.0", device="22b1", class_code="060400", group=20 + number)
    return host


def x86_card(root: Path) -> FakeHost:
    """A card with an audio function, both bound to their host drivers, behind a bridge of the same group."""
    host = FakeHost(root)
    host.add_function("0000:41:00.0", device="2684", class_code="030000", group=7, driver="nouveau")
    host.add_function("0000:41:00.1", device="22ba", class_code="040300", group=7, driver="snd_hda_intel")
    host.add_function("0000:40:01.0", device="1483", vendor="1022", class_code="060400", group=7)
    return host
