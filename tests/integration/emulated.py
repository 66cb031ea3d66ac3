# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""An emulated host that a test can look at and run one module of the collection on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LAB = str(ROOT / "tests" / "lab" / "lab")
MANIFEST = ROOT / "molecule" / "shared" / "manifest.py"
GPU = "0000:00:10.0"
SECOND_GPU = "0000:00:10.1"
ENVIRONMENT = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"), "ANSIBLE_NOCOLOR": "1",
               "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_PIPELINING": "true"}


@dataclass(frozen=True)
class EmulatedHost:
    """A running lab."""

    name: str
    inventory: Path

    def run(self, *command: str) -> str:
        """Runs a command in the host and returns its output; a failure fails the test."""
        done = subprocess.run([LAB, "ssh", self.name, "--", *command], check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def script(self, text: str) -> str:
        """Runs a shell script of the test, given on standard input."""
        done = subprocess.run([LAB, "ssh", self.name, "--", "bash", "-es"], input=text, check=False,
                              capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        return done.stdout

    def command(self, module: str, arguments: dict[str, Any], *extra: str) -> list[str]:
        """The command that runs one module of the collection on the host."""
        argv = [str(Path(sys.executable).parent / "ansible"), "-i", str(self.inventory), self.name,
                "-m", f"nvgrace.passthrough.{module}", *extra]
        return [*argv, "-a", json.dumps(arguments)] if arguments else argv

    def module(self, module: str, arguments: dict[str, Any], *extra: str) -> dict[str, Any]:
        """The result of one module of the collection, failed or not."""
        done = subprocess.run(self.command(module, arguments, *extra), cwd=ROOT, env=ENVIRONMENT, check=False,
                              capture_output=True, text=True)
        head, arrow, body = done.stdout.partition("=> ")
        assert arrow, f"no result: {done.stdout}{done.stderr}"
        result: dict[str, Any] = json.loads(body)
        return {**result, "failed": "FAILED" in head}

    def refusal(self, module: str, arguments: dict[str, Any], *extra: str) -> str:
        """The one sentence with which a module refuses. A result that changed or did not fail fails the test."""
        result = self.module(module, arguments, *extra)
        assert result["failed"], f"not refused: {result}"
        assert not result.get("changed"), result
        message: str = result["msg"]
        assert "Traceback" not in message and "\n" not in message.strip(), message
        return message

    def play(self, playbook: str, variables: dict[str, Any]) -> None:
        """Runs a playbook of the collection; one that fails fails the test."""
        subprocess.run([str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(self.inventory), playbook,
                        "-e", json.dumps(variables)], cwd=ROOT, env=ENVIRONMENT, check=True)

    def site(self, variables: dict[str, Any], directory: Path) -> dict[str, Any]:
        """Runs site.yml, and returns the report of the host, which goes into ``directory``."""
        self.play("site.yml", {**variables, "gpu_report_dir": str(directory), "gpu_report_show": False})
        loaded: dict[str, Any] = json.loads((directory / f"{self.name}.json").read_text())
        return loaded

    def drivers(self, *addresses: str) -> list[str]:
        """The driver of each function, or "none"."""
        return self.script("".join(f"basename \"$(readlink /sys/bus/pci/devices/{address}/driver || echo none)\"\n"
                                   for address in addresses)).split()

    def manifest(self, *trees: str) -> dict[str, Any]:
        """Every file below ``trees``, by default all that the collection may touch, and each function's driver."""
        output = self.script(f"cat > /tmp/manifest.py <<'END'\n{MANIFEST.read_text()}\nEND\n"
                             f"python3 /tmp/manifest.py /tmp/manifest.json {' '.join(trees)} >/dev/null\n"
                             "cat /tmp/manifest.json")
        loaded: dict[str, Any] = json.loads(output)
        return loaded


def start(name: str, directory: Path, *options: str) -> EmulatedHost:
    subprocess.run([LAB, "start", name, *options], check=True)
    inventory = directory / f"{name}.yml"
    done = subprocess.run([LAB, "inventory", name], check=True, capture_output=True, text=True)
    inventory.write_text(done.stdout)
    return EmulatedHost(name, inventory)
