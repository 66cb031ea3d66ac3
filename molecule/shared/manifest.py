#!/usr/bin/env python3
# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Manifest of everything that the collection may touch on a host, and the comparison of two of them.

usage: manifest.py FILE [DIRECTORY...]      writes the manifest, of these directories where some are given
       manifest.py --compare BEFORE AFTER [PATTERN...]   status 1 and one line for each difference; files with names
                                            like PATTERN are made again by their own programs: only their modes count
Independent of the collection's own code. Exclusions are named below, each with its reason.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import stat
import sys
from collections.abc import Sequence

TREES = ("/etc", "/boot", "/lib/modules", "/usr/src", "/var/lib/dkms", "/var/lib/nvgrace-passthrough",
         "/var/lib/libvirt", "/run/udev/rules.d")
EXCLUDED = {
    "/etc/resolv.conf": "written by the network, not by the collection",
    "/etc/adjtime": "written by the clock at shutdown",
    "/boot/efi/loader/random-seed": "systemd-boot renews it at each boot",
    "/var/lib/dkms/mok.key": "DKMS makes its signing key at the first build; keys stay, restore lists them",
    "/var/lib/dkms/mok.pub": "the certificate of that key",
}
EXCLUDED_PREFIXES = {
    "/var/lib/libvirt/dnsmasq/": "libvirt's own network state, changes with each start of the daemon",
    "/var/lib/libvirt/qemu/": "libvirt's own run-time directories; definitions are in /etc/libvirt",
    "/var/lib/libvirt/boot": "libvirt's own run-time directory",
    "/etc/libvirt/qemu/networks": "libvirt's own; the collection defines domains only",
}
# depmod makes these of the text files beside them, which are compared, whenever a module comes or goes
REGENERATED = ("modules.dep.bin", "modules.alias.bin", "modules.symbols.bin", "modules.builtin.bin",
               "modules.builtin.alias.bin")


def excluded(path: str) -> bool:
    return path in EXCLUDED or any(path.startswith(prefix) for prefix in EXCLUDED_PREFIXES)


def describe(path: str) -> str:
    info = os.lstat(path)
    mode = stat.S_IMODE(info.st_mode)
    if stat.S_ISLNK(info.st_mode):
        return f"link to {os.readlink(path)}"
    if stat.S_ISDIR(info.st_mode):
        return f"directory {mode:o} {info.st_uid}:{info.st_gid}"
    if stat.S_ISREG(info.st_mode):
        with open(path, "rb") as handle:
            digest = hashlib.sha256(handle.read()).hexdigest()
        return f"file {mode:o} {info.st_uid}:{info.st_gid} {digest}"
    return f"special {info.st_mode:o}"


def files(trees: Sequence[str]) -> dict[str, str]:
    found = {}
    for tree in trees:
        if os.path.islink(tree):
            tree = os.path.realpath(tree)
        for directory, names, leaves in os.walk(tree):
            names.sort()
            for name in [*names, *leaves]:
                path = os.path.join(directory, name)
                if not excluded(path) and name not in REGENERATED:
                    found[path] = describe(path)
    for tree in trees:
        if os.path.lexists(tree) and not excluded(tree):
            found[tree] = describe(tree)
    return found


def functions() -> dict[str, str]:
    """Driver and override of every PCI function."""
    base = "/sys/bus/pci/devices"
    found = {}
    for address in sorted(os.listdir(base)):
        link = os.path.join(base, address, "driver")
        driver = os.path.basename(os.readlink(link)) if os.path.islink(link) else "none"
        with open(os.path.join(base, address, "driver_override"), encoding="ascii") as handle:
            override = handle.read().strip()
        found[address] = f"driver {driver}, override {override}"
    return found


def write(path: str, trees: Sequence[str]) -> int:
    manifest = {"files": files(trees), "functions": functions()}
    with open(path, "w", encoding="utf-8") as handle:
        json.dump(manifest, handle, indent=1, sort_keys=True)
    print(f"{len(manifest['files'])} files and {len(manifest['functions'])} functions in {path}")
    return 0


def without_content(files: dict[str, str], patterns: Sequence[str]) -> dict[str, str]:
    """The same, without the hash of each file whose name is like one of ``patterns``."""
    return {path: text.rsplit(" ", 1)[0] if text.startswith("file ")
            and any(fnmatch.fnmatch(os.path.basename(path), pattern) for pattern in patterns) else text
            for path, text in files.items()}


def compare(before_path: str, after_path: str, patterns: Sequence[str]) -> int:
    with open(before_path, encoding="utf-8") as handle:
        before = json.load(handle)
    with open(after_path, encoding="utf-8") as handle:
        after = json.load(handle)
    for manifest in (before, after):
        manifest["files"] = without_content(manifest["files"], patterns)
    differences = []
    for part in ("files", "functions"):
        for key in sorted({*before[part], *after[part]}):
            old, new = before[part].get(key, "absent"), after[part].get(key, "absent")
            if old != new:
                differences.append(f"{key}: {old} -> {new}")
    for path, reason in {**EXCLUDED, **EXCLUDED_PREFIXES}.items():
        print(f"excluded {path}: {reason}")
    print(f"excluded {', '.join(REGENERATED)}: binary indexes that depmod regenerates from the text files beside them")
    for pattern in patterns:
        print(f"excluded {pattern}: what is in them, because their own programs make them again")
    for line in differences:
        print(f"DIFFERENT {line}")
    print(f"{len(before['files'])} files before, {len(after['files'])} after, {len(differences)} differences")
    return 1 if differences else 0


def main(arguments: list[str]) -> int:
    if len(arguments) >= 3 and arguments[0] == "--compare":
        return compare(arguments[1], arguments[2], arguments[3:])
    if arguments and not arguments[0].startswith("-"):
        return write(arguments[0], arguments[1:] or TREES)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
