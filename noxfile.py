# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stages of tests/run that need no virtual machine, for those who type "nox": lint unit package sanity cores.

tests/run is the gate, and make and .ci/run ask it, too. So a session here has no environment and no rule of its own.
antsibull-nox is left out: its ansible-test wants containers, its formatters write the whole tree anew, and what else it
runs is in these stages.
"""

from __future__ import annotations

import nox

STAGES = ("lint", "unit", "package", "sanity", "cores")
nox.options.sessions = ["lint", "unit"]


def stage(session: nox.Session) -> None:
    """One stage of tests/run."""
    session.run("tests/setup", external=True)
    session.run(".venv/bin/python", "tests/run", session.name, external=True)


for name in STAGES:
    nox.session(stage, name=name, python=False)
