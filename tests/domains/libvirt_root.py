# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's libvirt of one suite, asked in a root of its own what it makes of a domain. Nothing is started here."""

from __future__ import annotations

import copy
import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
SUITES = ("bookworm", "trixie", "forky")
HUGE_PAGES = (2 << 20, 512 << 20, 1 << 30)
MACHINES = ("aarch64", "x86_64")

# Asks libvirt's own driver, once for each machine, so that it looks at QEMU and keeps what it has found.
_PROBE = """
for machine in aarch64 x86_64; do
    export FAKE_MACHINE=$machine LD_PRELOAD=/work/fakehost.so
    virsh -q -c "qemu:///embed?root=/work/$machine" domcapabilities --arch $machine --virttype qemu >/dev/null || exit 1
done
"""
# Each domain of /work/ask (MACHINE-NAME.xml): the answers are files beside it. The names of domains are in the XML.
_ASK = """
for file in /work/ask/*.xml; do
    base=${file%.xml} machine=${file##*/} name=$(sed -n 's|.*<name>\\(.*\\)</name>.*|\\1|p' $file | head -n 1)
    export FAKE_MACHINE=${machine%%-*} LD_PRELOAD=/work/fakehost.so
    uri="qemu:///embed?root=/work/$FAKE_MACHINE"
    virsh -q -c test:///default define --validate $file >/dev/null 2>$base.refusal &&
        virsh -q -c "$uri" "define --validate $file; dumpxml --inactive $name" >$base.normal 2>$base.refusal &&
        virsh -q -c "$uri" domxml-to-native qemu-argv --xml $file >$base.argv 2>$base.refusal &&
        : >$base.refusal
done
"""


@dataclass(frozen=True)
class Answer:
    """``refusal`` is empty where libvirt takes the domain; ``normal`` is then the XML as libvirt keeps it, and ``argv``
    QEMU's command line, an option with its values a line."""

    refusal: str
    normal: str
    argv: tuple[str, ...]


class LibvirtRoot:
    """The root of a suite with a work directory, where libvirt believes that the machine has KVM."""

    def __init__(self, suite: str, work: Path) -> None:
        self.suite = suite
        self.work = work
        self.path = Path(_output("sh", str(HERE / "libvirt-root.sh"), suite))
        self._build_fakehost()
        for machine in MACHINES:
            (work / machine / "etc").mkdir(parents=True)
            pages = ", ".join(f'"/dev/hugepages-{size}"' for size in HUGE_PAGES)
            (work / machine / "etc" / "qemu.conf").write_text(
                f'user = "root"\ngroup = "root"\nhugetlbfs_mount = [{pages}]\n')
        self.run(_PROBE)
        for machine in MACHINES:
            (found,) = (work / machine / "cache" / "qemu" / "capabilities").glob("*.xml")
            claim_kvm(found)

    def _build_fakehost(self) -> None:
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o",
                        str(self.work / "fakehost.so"), str(HERE / "fakehost.c")], check=True)

    @property
    def schema(self) -> Path:
        return self.path / "usr/share/libvirt/schemas/domain.rng"

    def versions(self) -> str:
        """"libvirt 11.3.0, QEMU 10.0.13"."""
        qemu = self.run("qemu-system-aarch64 --version").split("version ")[1].split()[0]
        return f"libvirt {self.run('virsh --version').strip()}, QEMU {qemu}"

    def run(self, script: str) -> str:
        """Runs a script in the sandbox and returns its output."""
        return _output("sh", str(HERE / "sandbox.sh"), str(self.path), str(self.work), "sh", "-c", script)

    def ask(self, domains: Mapping[str, str]) -> dict[str, Answer]:
        """What libvirt makes of each domain (name -> XML); the names are those of the answers only."""
        ask = self.work / "ask"
        ask.mkdir(exist_ok=True)
        bases = {name: ask / f"{_machine(xml)}-{name}" for name, xml in domains.items()}
        for name, xml in domains.items():
            bases[name].with_suffix(".xml").write_text(xml)
        self.run(_ASK)
        return {name: _answer(base) for name, base in bases.items()}


def _output(*argv: str) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{argv[:2]}: {done.stderr}"
    return done.stdout.strip()


def _machine(xml: str) -> str:
    kind = ElementTree.fromstring(xml).find("os/type")
    assert kind is not None
    return str(kind.get("arch"))


def _answer(base: Path) -> Answer:
    refusal = " ".join(base.with_suffix(".refusal").read_text().split())
    if refusal:
        return Answer(refusal, "", ())
    return Answer("", base.with_suffix(".normal").read_text(), tuple(_lines(base.with_suffix(".argv").read_text())))


def _lines(argv: str) -> list[str]:
    """An option and its values on one line, without the environment and with what depends on the run named."""
    words = shlex.split(argv.replace("\\\n", " "))
    first = next(index for index, word in enumerate(words) if "=" not in word.partition("/")[0])
    lines: list[str] = []
    for word in words[first:]:
        if word.startswith("-") or not lines:
            lines.append(_stable(word))
        else:
            lines[-1] += f" {_stable(word)}"
    return lines


def _stable(word: str) -> str:
    """libvirt's state directory is ours, and QEMU's machine type carries its version."""
    word = re.sub(r"/work/(aarch64|x86_64)/", "/STATE/", word)
    word = re.sub(r"qemu-embed-[0-9a-f]+", "qemu-embed-ID", word)
    word = re.sub(r'fd":"[0-9]+"', 'fd":"N"', word)
    return re.sub(r"^(virt|pc-q35)-[0-9.]+", r"\1-VERSION", word)


def claim_kvm(capabilities: Path) -> None:
    """Makes what libvirt has found of a QEMU under emulation say the same of KVM.

    libvirt starts QEMU to learn that, and keeps it in this file as long as QEMU, itself and the kernel stay the same.
    """
    tree = ElementTree.parse(capabilities)
    root = tree.getroot()
    flags = root.findall("flag")
    assert all(flag.get("name") != "kvm" for flag in flags), "this libvirt already believes in KVM"
    root.insert(list(root).index(flags[-1]) + 1, ElementTree.Element("flag", {"name": "kvm"}))
    kernel = os.uname()
    element = ElementTree.Element("kernelVersion")
    element.text = f"{kernel.release} {kernel.version}"
    arch = root.find("arch")
    assert arch is not None
    root.insert(list(root).index(arch), element)
    for tag in ("hostCPU", "cpu", "machine"):
        for emulated in root.findall(f"{tag}[@type='tcg']"):
            native = copy.deepcopy(emulated)
            native.set("type", "kvm")
            root.insert(list(root).index(emulated), native)
    for gic in root.findall("gic"):
        gic.set("kernel", "yes")
    tree.write(capabilities)
