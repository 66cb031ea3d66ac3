# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host in a directory tree, with a DKMS that leaves the same files behind as DKMS 3.2 does."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional, Union

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import CommandError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.host import CommandResult, Host
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.certificates import (
    certificate_der,
    parse_certificate,
)
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.modulefile import read_module
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.source import SourceTree, make_tree, pack
from ansible_collections.nvgrace.passthrough.tests.unit._host.der import DKMS_CERTIFICATE
from ansible_collections.nvgrace.passthrough.tests.unit._kmod import elf

NAME = "nvgrace-gpu-vfio-pci"
RUNNING = "7.3.4+deb13-arm64"
OTHER = "6.12.107+deb13-arm64"
MACHINE = "aarch64"
ALIAS = "vfio_pci:v000010DEd00002342sv*sd*bc*sc*i*"
FLAGS = " SMP preempt mod_unload aarch64 "


class Killed(BaseException):
    """Stands for kill -9: no handler of the code under test may see it as an error."""


class FakeHost(Host):
    """Programs are played here; ``calls`` lists them. ``kill_at`` ends the run within that call, half-way."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.calls: list[str] = []
        self.programs = {"dkms", "make", "gcc", "modinfo", "depmod", "modprobe"}
        self.build_result: Optional[CommandResult] = None
        self.signs = True
        self.kill_at = 0

    def which(self, program: str) -> Optional[str]:
        return f"/usr/bin/{program}" if program in self.programs else None

    def run(self, argv: Sequence[str], timeout: float = 60, ok: Sequence[int] = (0,),
            cwd: Optional[str] = None) -> CommandResult:
        words = list(argv)
        if words[0] == "timeout":
            words = words[3:]
        if self.which(words[0]) is None:
            raise CommandError(f"The program {words[0]} is not installed on this host.")
        if words[0] == "modinfo":
            return self._modinfo(words)
        self.calls.append(" ".join(words))
        half = len(self.calls) == self.kill_at
        result = self._play(words, half)
        if half:
            raise Killed
        if ok and result.rc not in ok:
            raise CommandError(f"{' '.join(words)} failed with status {result.rc}: {result.last_line()}")
        return result

    def dkms_calls(self) -> list[str]:
        return [call.split()[1] for call in self.calls if call.startswith("dkms ")]

    def make(self, path: str, content: Union[str, bytes] = "", mode: Optional[int] = None) -> None:
        real = Path(self.path(path))
        real.parent.mkdir(parents=True, exist_ok=True)
        real.write_bytes(content if isinstance(content, bytes) else content.encode())
        if mode is not None:
            real.chmod(mode)

    def add_kernel(self, release: str, headers: bool = True) -> None:
        self.make(f"/lib/modules/{release}/kernel/drivers/vfio/pci/vfio-pci.ko", f"ELF\nvermagic:{release}{FLAGS}\n")
        if headers:
            self.add_headers(release)
        self._depmod(release)

    def add_headers(self, release: str) -> None:
        self.make(f"/lib/modules/{release}/build/include/config/auto.conf",
                  'CONFIG_CC_VERSION_TEXT="aarch64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0"\n'
                  'CONFIG_MODULE_SIG_HASH="sha256"\n')

    def add_in_tree(self, release: str, content: str = f"ELF\nsrcversion:KERNEL\nalias:{ALIAS}\n") -> None:
        self.make(f"/lib/modules/{release}/kernel/drivers/vfio/pci/nvgrace-gpu/{NAME}.ko", content)
        self._depmod(release)

    def load(self, srcversion: str, devices: Sequence[str] = (), users: int = 0) -> None:
        module = f"/sys/module/{NAME.replace('-', '_')}"
        self.make(f"{module}/srcversion", f"{srcversion}\n")
        self.make(f"{module}/refcnt", f"{users}\n")
        self.make(f"{module}/drivers/pci:nvgrace_gpu_vfio_pci/new_id")
        for device in devices:
            self.make(f"{module}/drivers/pci:nvgrace_gpu_vfio_pci/{device}/uevent")

    def manifest(self) -> dict[str, str]:
        """Every file below the directories that a removal must give back, as it is."""
        found = {}
        for top in ("usr/src", "var/lib/dkms", "var/lib/nvgrace-passthrough", "lib/modules", "etc"):
            for parent, directories, names in os.walk(os.path.join(self.root, top)):
                for name in names:
                    path = os.path.join(parent, name)
                    found[os.path.relpath(path, self.root)] = (os.readlink(path) if os.path.islink(path)
                                                               else Path(path).read_bytes().decode("latin-1"))
                if not directories and not names and parent != os.path.join(self.root, top):
                    found[os.path.relpath(parent, self.root)] = "empty directory"
        return found

    def _modinfo(self, words: list[str]) -> CommandResult:
        content = Path(words[1]).read_bytes()
        if not content.startswith(b"\x7fELF"):
            return CommandResult(tuple(words), 0, content.decode(), "")
        try:
            info = read_module(content).info
        except ValueError as error:
            return CommandResult(tuple(words), 1, "", str(error))
        lines = [f"srcversion: {info.srcversion}", f"vermagic: {info.vermagic} ",
                 *(f"alias: {alias}" for alias in info.aliases)]
        if info.signed:
            key = info.sig_key or ""
            lines += ["sig_id: PKCS#7", f"signer: {info.signer}",
                      "sig_key: " + ":".join(key[place:place + 2] for place in range(0, len(key), 2)).upper()]
        return CommandResult(tuple(words), 0, "\n".join(lines) + "\n", "")

    def _play(self, words: list[str], half: bool) -> CommandResult:
        rc = 0
        if words[0] == "depmod":
            if not half:
                self._depmod(words[2])
        elif words[0] == "modprobe":
            shutil.rmtree(self.path(f"/sys/module/{words[2]}"))
        elif words[0] == "dkms":
            options = dict(zip(words[2::2], words[3::2]))
            tree = f"/var/lib/dkms/{options['-m']}"
            if words[1] == "build" and self.build_result is not None:
                return self.build_result
            rc = getattr(self, f"_dkms_{words[1]}")(tree, options, half)
        return CommandResult(tuple(words), rc, "", f"dkms says {rc}\n" if rc else "")

    def _is_broken(self, tree: str, options: dict[str, str]) -> bool:
        source = f"{tree}/{options['-v']}/source"
        conf = f"/usr/src/{options['-m']}-{options['-v']}/dkms.conf"
        return not os.path.islink(self.path(source)) or not self.exists(conf)

    def _dkms_add(self, tree: str, options: dict[str, str], half: bool) -> int:
        if os.path.lexists(self.path(f"{tree}/{options['-v']}/source")):
            return 3
        os.makedirs(self.path(f"{tree}/{options['-v']}/build"), exist_ok=True)
        if not half:
            os.symlink(f"/usr/src/{options['-m']}-{options['-v']}", self.path(f"{tree}/{options['-v']}/source"))
        return 0

    def _dkms_build(self, tree: str, options: dict[str, str], half: bool) -> int:
        base = f"{tree}/{options['-v']}/{options['-k']}/{MACHINE}"
        if self._is_broken(tree, options) or self.exists(base):
            return 3
        self.make(f"{base}/log/make.log", "log")
        if half:
            return 0
        source = Path(self.path(f"/usr/src/{options['-m']}-{options['-v']}/main.c")).read_bytes()
        srcversion = hashlib.sha256(source).hexdigest()[:8].upper()
        self.make(f"{base}/module/{NAME}.ko", self._sign(elf.module(options["-k"], srcversion, ALIAS, flags=FLAGS)))
        return 0

    def _sign(self, content: bytes) -> bytes:
        """With the pair that the last of DKMS's settings names, or with one that DKMS makes."""
        pair = ["/var/lib/dkms/mok.key", "/var/lib/dkms/mok.pub"]
        names = [f"/etc/dkms/framework.conf.d/{name}" for name in self.listdir("/etc/dkms/framework.conf.d")]
        for path in ["/etc/dkms/framework.conf", *names]:
            for place, setting in enumerate(("mok_signing_key", "mok_certificate")):
                match = re.search(rf'^{setting}=["\']?([^"\'\s]+)', self.read_text(path) or "", re.MULTILINE)
                if match:
                    pair[place] = match[1]
        if not self.exists(pair[0]):
            self.make(pair[0], "key")
            self.make(pair[1], DKMS_CERTIFICATE)
        certificate = parse_certificate(certificate_der(self.read_bytes(pair[1]) or b""))
        return elf.signed(content, certificate.issuer, bytes.fromhex(certificate.serial)) if self.signs else content

    def _dkms_install(self, tree: str, options: dict[str, str], half: bool) -> int:
        release = options["-k"]
        base = f"{options['-v']}/{release}/{MACHINE}"
        link = f"{tree}/kernel-{release}-{MACHINE}"
        target = f"/lib/modules/{release}/updates/dkms/{NAME}.ko"
        own = f"/lib/modules/{release}/kernel/drivers/vfio/pci/nvgrace-gpu/{NAME}.ko"
        if self._is_broken(tree, options) or not self.exists(f"{tree}/{base}/module/{NAME}.ko"):
            return 4
        if os.path.islink(self.path(link)) and os.readlink(self.path(link)) == base:
            self._uninstall(tree, options["-v"], release, False)  # what --force does first
        if not os.path.lexists(self.path(link)):
            for original in (target, own):
                if self.exists(original):
                    backup = f"{tree}/original_module/{release}/{MACHINE}/{NAME}.ko"
                    self.make(f"{backup}.origin", f"{original}\n")
                    os.replace(self.path(original), self.path(backup))
                    break
        content = Path(self.path(f"{tree}/{base}/module/{NAME}.ko")).read_bytes()
        self.make(target, content[:10] if half else content)
        if half:
            return 0
        if os.path.lexists(self.path(link)):
            os.unlink(self.path(link))
        os.symlink(base, self.path(link))
        self._depmod(release)
        return 0

    def _dkms_remove(self, tree: str, options: dict[str, str], half: bool) -> int:
        version = options["-v"]
        if self._is_broken(tree, options):
            return 4
        wanted = [options["-k"]] if "-k" in options else [
            name for name in self.listdir(f"{tree}/{version}") if name[0].isdigit()]
        for release in wanted:
            self._uninstall(tree, version, release, half)
            if half:
                return 0
            shutil.rmtree(self.path(f"{tree}/{version}/{release}"))
        if set(self.listdir(f"{tree}/{version}")) <= {"build", "source"}:
            shutil.rmtree(self.path(f"{tree}/{version}"))
        if not self.listdir(tree):
            os.rmdir(self.path(tree))
        return 0

    def _uninstall(self, tree: str, version: str, release: str, half: bool) -> None:
        link = self.path(f"{tree}/kernel-{release}-{MACHINE}")
        if not os.path.islink(link) or os.readlink(link) != f"{version}/{release}/{MACHINE}":
            return
        target = f"/lib/modules/{release}/updates/dkms/{NAME}.ko"
        built = self.read_bytes(f"{tree}/{version}/{release}/{MACHINE}/module/{NAME}.ko")
        if self.exists(target) and self.read_bytes(target) == built:
            os.unlink(self.path(target))
            with contextlib.suppress(OSError):
                os.removedirs(os.path.dirname(self.path(target)))
        if half:
            return
        backup = f"{tree}/original_module/{release}/{MACHINE}/{NAME}.ko"
        if self.exists(backup):
            origin = self.read_text(f"{backup}.origin")
            os.makedirs(os.path.dirname(self.path(str(origin))), exist_ok=True)
            os.replace(self.path(backup), self.path(str(origin)))
            shutil.rmtree(self.path(f"{tree}/original_module"))
        os.unlink(link)
        self._depmod(release)

    def _depmod(self, release: str) -> None:
        base = Path(self.path(f"/lib/modules/{release}"))
        found = {path.name: path for path in sorted(base.glob("**/*.ko")) if "updates" in path.parts}
        own = {path.name: path for path in sorted(base.glob("kernel/**/*.ko"))}
        lines = [f"{path.relative_to(base)}:" for path in {**own, **found}.values()]
        (base / "modules.dep").write_text("\n".join(lines) + "\n")


def source(version: str = "1.0.0", code: str = "one") -> SourceTree:
    conf = f'PACKAGE_NAME="{NAME}"\nPACKAGE_VERSION="{version}"\nBUILT_MODULE_NAME[0]="{NAME}"\n'
    ids = "\t{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, 0x2342) },\n"
    return make_tree({"dkms.conf": conf.encode(), "main.c": f"/* {code} */\n{ids}".encode(),
                      "probe.sh": b"#!/bin/sh\n"})


def parameters(**overrides: Any) -> dict[str, Any]:
    tree = overrides.pop("tree", source())
    return {"state": "present", "name": NAME, "version": None, "kernels": ["running"], "prefer_in_tree": True,
            "required_ids": None, "only_if_required": False, "force": False, "build_timeout": 1800, "source": None,
            "signing_key": None, "signing_certificate": None, "certificate_sha256": None, "dest": None,
            "prebuilt": None, "_source": pack(tree), "_source_sha256": tree.sha256, "_have": None, "_prebuilt": None,
            "_aliases": None, "_modules": None, **overrides}


def debian_host(root: Path) -> FakeHost:
    """One kernel, its headers, and DKMS that was never used."""
    fake = FakeHost(root)
    fake.make("/proc/sys/kernel/osrelease", f"{RUNNING}\n")
    fake.make("/proc/sys/kernel/arch", f"{MACHINE}\n")
    fake.make("/etc/os-release", 'ID=debian\nVERSION_ID="13"\n')
    fake.make("/var/lib/dkms/dkms_dbversion", "2.0.0\n")
    fake.make("/usr/src/linux/Makefile")
    fake.add_kernel(RUNNING)
    return fake
