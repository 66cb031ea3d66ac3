# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""galaxy-importer, by which Galaxy takes a collection in or refuses it, on the release of CONTRIBUTING.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import build_collection
import check_release
import places
import pytest
from gate import ROOT

ADDRESS = "repository: https://example.invalid/nvgrace.passthrough\n"

# An example is for AWX's own collection, which the importer has not.
AWX = "couldn't resolve module/action 'awx.awx."


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What it says about the tarball. Its own ansible-lint runs, its flake8 does not: lint has ruff and pycodestyle."""
    work = tmp_path_factory.mktemp("galaxy")
    copy = check_release.released(work / "copy")
    # Galaxy wants an address. The project has none before it is published, so the copy gets one that leads nowhere.
    with (copy / "galaxy.yml").open("a") as metadata:
        metadata.write(ADDRESS)
    tarball = build_collection.build(work, copy)
    # in an environment of its own: it wants an attrs that other tools of .venv are too new for
    own = places.environment("galaxy", Path(sys.executable), ["galaxy-importer>=0.4.30"])
    environment = {**os.environ, "HOME": str(work), "PATH": f"{own}:{os.environ['PATH']}"}
    done = subprocess.run([str(own / "python"), "-m", "galaxy_importer.main", tarball.name], cwd=work, env=environment,
                          check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    (places.WORK / "galaxy-importer.log").write_text(done.stdout)
    assert done.returncode == 0, done.stdout[-3000:]
    found = {entry["name"] for entry in json.loads((work / "importer_result.json").read_text())["contents"]}
    assert found >= {path.stem for path in (ROOT / "plugins" / "modules").glob("*.py")}
    return done.stdout


def test_galaxy_takes_it_without_a_remark(log: str) -> None:
    assert "Importer processing completed successfully" in log
    remarks = [line for line in log.splitlines() if line.startswith(("ERROR", "WARNING")) and AWX not in line]
    assert remarks == []


def test_galaxys_ansible_lint_ran(log: str) -> None:
    assert "ansible-lint run complete" in log
