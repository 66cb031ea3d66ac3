# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""hold_kernel: which packages it pins, and what the real apt makes of the file."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._host import files
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.settings import HostSettings

NEWEST = ["linux-image-arm64", "linux-headers-arm64", "linux-image-arm64-16k", "linux-image-rt-amd64",
          "linux-image-cloud-amd64", "linux-generic", "linux-image-generic", "linux-headers-generic-64k",
          "linux-image-generic-hwe-24.04", "linux-generic-64k-hwe-24.04-edge", "linux-nvidia", "linux-nvidia-64k",
          "linux-image-nvidia-64k-hwe-24.04", "linux-nvidia-6.11", "linux-image-virtual", "linux-oem-24.04b",
          "linux-modules-extra-gcp", "linux-modules-arm64", "linux-base-arm64"]
FREE = ["linux-image-6.12.48+deb13-arm64", "linux-headers-6.12.48+deb13-arm64", "linux-headers-6.12.48+deb13-common",
        "linux-modules-7.3.4+deb13-arm64", "linux-base-7.3.4+deb13-arm64",
        "linux-image-unsigned-6.8.0-1009-nvidia", "linux-nvidia-headers-6.8.0-1009",
        "linux-nvidia-6.11-headers-6.11.0-1",
        "linux-base", "linux-firmware", "linux-libc-dev", "linux-perf", "linux-kbuild-6.12", "linux-source",
        "linux-doc", "libvirt-daemon"]


@pytest.mark.parametrize("name", NEWEST)
def test_packages_that_bring_a_newer_kernel(name: str) -> None:
    assert re.search(files.NEWEST_KERNELS, name)


@pytest.mark.parametrize("name", FREE)
def test_packages_of_one_kernel_and_others_stay_free(name: str) -> None:
    assert not re.search(files.NEWEST_KERNELS, name)


class Apt:
    """The real apt over a made-up host: all packages installed at version 1, a repository with version 2."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.preferences = root / "preferences.d"
        for name in ("repository", "preferences.d", "lists/partial", "cache/archives/partial", "etc"):
            (root / name).mkdir(parents=True)
        stanza = ("Package: {0}\nVersion: {1}\nArchitecture: all\nMaintainer: nobody\nDescription: {0}\n{2}\n").format
        packages = [*NEWEST, *FREE]
        (root / "status").write_text("".join(stanza(name, 1, "Status: install ok installed\n") for name in packages))
        (root / "repository" / "Packages").write_text("".join(
            stanza(name, 2, f"Filename: ./{name}.deb\nSize: 1\nSHA256: {'0' * 64}\n") for name in packages))
        (root / "sources.list").write_text(f"deb [trusted=yes] file:{root}/repository ./\n")
        self._get("update")

    def upgrades(self) -> set[str]:
        """The packages that a full upgrade would take."""
        lines = self._get("--simulate", "dist-upgrade").splitlines()
        return {line.split()[1] for line in lines if line.startswith("Inst ")}

    def _get(self, *arguments: str) -> str:
        options = {"Dir::Etc": self.root / "etc", "Dir::Etc::sourcelist": self.root / "sources.list",
                   "Dir::Etc::preferencesparts": self.preferences, "Dir::State::lists": self.root / "lists",
                   "Dir::State::status": self.root / "status", "Dir::Cache": self.root / "cache",
                   "APT::Sandbox::User": "", "Debug::NoLocking": "true"}
        argv = ["apt-get", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
        done = subprocess.run([*argv, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "preferences" not in done.stderr
        return done.stdout


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="there is no apt here, and a stand-in would show nothing")
def test_what_apt_makes_of_it(tmp_path: Path) -> None:
    apt = Apt(tmp_path)
    assert apt.upgrades() == {*NEWEST, *FREE}
    content = files.preferences(HostSettings(hold_kernel=True))
    assert content is not None
    (apt.preferences / Path(files.PREFERENCES).name).write_bytes(content)
    assert apt.upgrades() == set(FREE)
