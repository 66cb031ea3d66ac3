# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-test on each ansible-core that README promises, and the unit tests on each Python of managed hosts.

An interpreter that this machine does not have is a skipped test, so that the count shows it.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import places
import pytest

# ansible-core and the controller's Python that it is run with: each Python from 3.11 on once
CORES = {"2.19": "3.11", "2.20": "3.12", "2.21": "3.13"}
# No ansible-core of today runs on these, its module_utils do.
ONLY_TARGETS = ("3.9", "3.10")
# The runner of this project's tests, and scenarios of molecule: nobody installs them, and lint looks at them.
NOT_SHIPPED = ("--exclude", "tests/", "--exclude", "molecule/")
TEST_PACKAGES = ("pytest", "hypothesis", "jsonschema", "jinja2", "pyyaml")


@dataclass(frozen=True)
class Core:
    """``bin`` of the environment, and ``path`` with all interpreters for targets."""

    version: str
    bin: Path
    path: Path

    def ansible_test(self, *arguments: str) -> str:
        """Its output; a failure of the test where it fails."""
        proxies = ("http_proxy", "https_proxy", "no_proxy")
        environment = {name: os.environ[name] for name in proxies if name in os.environ}
        environment.update(PATH=f"{self.path}:/usr/sbin:/usr/bin:/sbin:/bin", HOME=str(places.HOME), LC_ALL="C.UTF-8")
        done = subprocess.run([str(self.bin / "ansible-test"), *arguments], cwd=places.CHECKOUT, env=environment,
                              check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        (places.WORK / f"{arguments[0]}-{self.version}.log").write_text(done.stdout)
        assert done.returncode == 0, "\n".join(line for line in done.stdout.splitlines()
                                               if re.match("ERROR|FATAL|FAILED|E  ", line))
        return done.stdout


def python(version: str) -> Path:
    found = places.interpreter(version)
    if found is None:
        pytest.skip(f"Python {version} is not on this machine")
    return found


def core(version: str) -> Core:
    own = places.environment(f"core-{version}", python(CORES[version]), [f"ansible-core=={version}.*"])
    (listed,) = own.parent.glob("lib/python3*/site-packages/ansible_test/_internal/python_requirements.py")
    (pip,) = set(re.findall(r"pip='([0-9.]+)'", listed.read_text()))
    places.prepare_home(pip)
    return Core(version, own, places.programs(version, own, CORES[version]))


@pytest.fixture(scope="session")
def sanity() -> dict[str, str]:
    """Output of each successful ansible-test sanity."""
    places.prepare_checkout()
    return {}


@pytest.mark.parametrize("version", CORES)
def test_sanity(version: str, sanity: dict[str, str]) -> None:
    sanity[version] = core(version).ansible_test("sanity", "--local", *NOT_SHIPPED)
    assert 'Running sanity test "validate-modules"' in sanity[version]
    assert "Required program" not in sanity[version], "a test of ansible-test misses its program and did not run"


@pytest.mark.parametrize("target", places.PYTHONS)
@pytest.mark.parametrize("version", CORES)
def test_sanity_compiled_and_imported_it(version: str, target: str, sanity: dict[str, str]) -> None:
    python(target)
    python(CORES[version])
    assert version in sanity, f"ansible-test sanity of {version} did not pass"
    for test in ("compile", "import"):
        assert f'Running sanity test "{test}" on Python {target}\n' in sanity[version]


@pytest.mark.usefixtures("sanity")
@pytest.mark.parametrize("version", CORES)
def test_units(version: str) -> None:
    output = core(version).ansible_test("units", "--local", "--requirements", "--python", CORES[version])
    passed = re.search(r"=+ (\d+) passed", output)
    assert passed is not None and int(passed[1]) > 2000, output[-300:]


@pytest.mark.parametrize("version", ONLY_TARGETS)
def test_units_on_a_managed_host(version: str) -> None:
    own = places.environment(f"target-{version}", python(version), TEST_PACKAGES)
    areas = sorted(str(path) for path in (places.ROOT / "tests" / "unit").glob("_*"))
    # action plugins, and the rendering of domains in them, are the controller's
    argv = [str(own / "python"), "-m", "pytest", "-p", "no:cacheprovider", "--ignore-glob=*/test_action.py", *areas]
    environment = {**os.environ, "PYTHONPATH": str(places.pure_ansible(core("2.19").bin)),
                   "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(argv, cwd=places.ROOT, env=environment, check=False, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    (places.WORK / f"units-target-{version}.log").write_text(done.stdout)
    assert done.returncode == 0, done.stdout[-3000:]
