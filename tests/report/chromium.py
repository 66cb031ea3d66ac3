# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The browser of the report's tests. As a program it sees to it that there is one."""

from __future__ import annotations

import os
import shutil
import subprocess


def program() -> str:
    """Debian's Chromium, which is installed where it is missing."""
    if shutil.which("chromium") is None:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for argv in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
            subprocess.run(["apt-get", "-qq", *argv], check=True, env=environment, stdout=subprocess.DEVNULL)
    found = shutil.which("chromium")
    assert found, "there is no chromium after apt-get install chromium"
    return found


if __name__ == "__main__":
    print(program())
