# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Refusals of roles and playbooks that come before anything is changed on a host. Run in check mode all the same."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def failure(playbook: str, variables: dict[str, Any]) -> str:
    """What ansible-playbook prints of a play on this machine that must fail."""
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"), "ANSIBLE_NOCOLOR": "1"}
    argv = [str(Path(sys.executable).parent / "ansible-playbook"), "--check", "-i", "localhost,", "-c", "local",
            "-e", json.dumps({"ansible_become": False, "ansible_python_interpreter": sys.executable, **variables}),
            playbook]
    done = subprocess.run(argv, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 2, done.stdout + done.stderr
    return " ".join(done.stdout.split())


@pytest.mark.parametrize(("role", "variables", "message"), [
    ("gpu_preflight", {}, "nvgrace_gpus is empty: list the GPUs of localhost by address"),
    ("gpu_kmod", {"gpu_kmod_build": "once"}, "gpu_kmod_build is once: name the host that builds in gpu_kmod_builder"),
])
def test_roles(tmp_path: Path, role: str, variables: dict[str, Any], message: str) -> None:
    playbook = tmp_path / "play.yml"
    playbook.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False,
                                     "roles": [f"nvgrace.passthrough.{role}"]}]))
    assert re.search(message, failure(str(playbook), variables))


def test_restore_of_an_empty_list() -> None:
    assert "restore_gpus is empty: name the GPUs of localhost that go back" in failure(
        "nvgrace.passthrough.restore", {"restore_gpus": []})


def test_no_reboot_under_a_vm(tmp_path: Path) -> None:
    playbook = tmp_path / "play.yml"
    task = {"ansible.builtin.include_role": {"name": "nvgrace.passthrough.gpu_host", "tasks_from": "reboot.yml",
                                             "rolespec_validate": False}}
    playbook.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
    variables = {"gpu_host_reboot_ok": True, "gpu_host_result": {"reboot_required": True, "reboot_reasons": ["x"]},
                 "gpu_preflight_gpu_info": {"gpus": [{"holders": [{"vm": "train7"}, {"pid": 1}]}, {}]}}
    assert "localhost needs a reboot, and these VMs run with its GPUs: train7. Stop or move them" in failure(
        str(playbook), variables)
