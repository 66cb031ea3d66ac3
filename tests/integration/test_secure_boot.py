# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host whose firmware enforces Secure Boot: what is told before the certificate is enrolled, and that the module
loads once the machine's owner has done that at the console."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulated import LAB, EmulatedHost, start

NAME = "secure"
MODULE = "nvgrace-gpu-vfio-pci"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedHost]:
    yield start(NAME, tmp_path_factory.mktemp("lab"), "--arch", "amd64", "--boot", "firmware", "--secure-boot")
    subprocess.run([LAB, "stop", NAME], check=True)


def checks(host: EmulatedHost) -> dict[str, dict[str, Any]]:
    return {check["id"]: check for check in host.module("host_info", {})["host"]["checks"]}


def modprobe(host: EmulatedHost) -> str:
    """Return "loaded", or why modprobe failed."""
    return host.script(f"if modprobe {MODULE} 2>&1; then echo loaded; fi").strip()


def test_enrolment(host: EmulatedHost, tmp_path: Path) -> None:
    before = checks(host)["secure-boot"]
    assert "Secure Boot" in before["why"] and before["status"] in ("ok", "warn"), before

    built = host.module("dkms_module", {})
    assert built["changed"] and not built["failed"], built
    signing = built["signing"]
    assert signing["secure_boot"] and signing["enforced"] and signing["lockdown"] != "none", signing
    assert signing["certificate_state"] == "not-enrolled", signing
    assert any("mokutil --import" in line for line in signing["enrolment_steps"]), signing
    assert any("console" in line for line in signing["enrolment_steps"]), signing
    assert "Key was rejected" in modprobe(host)
    assert checks(host)["module-signature"]["status"] != "ok"

    certificate = tmp_path / "mok.der"
    certificate.write_bytes(subprocess.run([LAB, "ssh", NAME, "--", "cat", signing["certificate"]], check=True,
                                           capture_output=True).stdout)
    subprocess.run([LAB, "reboot", NAME, "--enrol", str(certificate)], check=True)

    again = host.module("dkms_module", {})
    assert not again["changed"] and not again["failed"], again
    assert again["signing"]["certificate_state"] == "enrolled", again["signing"]
    assert again["signing"]["enrolment_steps"] == []
    assert modprobe(host) == "loaded"
    assert checks(host)["module-signature"]["status"] == "ok"
