# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-test on each ansible-core that README promises, and the unit tests on each Python of managed hosts.

An interpreter that this machine does not have is a skipped test, so that the count shows it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import places
import pytest
from gate import ROOT

# ansible-core and the controller's Pythons that it knows. It runs with the first that is here, so that a machine with
# all of them tries each once.
CORES = {"2.19": ("3.11", "3.12", "3.13"), "2.20": ("3.12", "3.13", "3.14"), "2.21": ("3.13", "3.12", "3.14")}
OWN = max((core for core, pythons in CORES.items() if f"{sys.version_info[0]}.{sys.version_info[1]}" in pythons),
          default=None)
# Marked with "own": the newest for this Python, which make test asks for
EACH_CORE = [pytest.param(core, marks=[pytest.mark.own] if core == OWN else [], id=core) for core in CORES]
# No ansible-core of today runs on these, its module_utils do.
ONLY_TARGETS = ("3.9", "3.10")
# The runner of this project's tests, and scenarios of molecule: nobody installs them, and lint looks at them.
NOT_SHIPPED = ("--exclude", "tests/", "--exclude", "molecule/")
TEST_PACKAGES = ("pytest", "hypothesis", "jsonschema", "jinja2", "pyyaml")


@dataclass(frozen=True)
class Core:
    """``python``: the controller's. ``bin`` of its environment, and ``path`` with all interpreters for targets."""

    version: str
    python: str
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


def of_controller(version: str) -> tuple[str, Path]:
    """Version and path of the Python that an ansible-core runs with here."""
    for candidate in CORES[version]:
        found = places.interpreter(candidate)
        if found is not None:
            return candidate, found
    pytest.skip(f"Python {' or '.join(CORES[version])} is not on this machine")


def core(version: str) -> Core:
    own_python, path = of_controller(version)
    own = places.environment(f"core-{version}", path, [f"ansible-core=={version}.*"])
    (listed,) = own.parent.glob("lib/python3*/site-packages/ansible_test/_internal/python_requirements.py")
    (pip,) = set(re.findall(r"pip='([0-9.]+)'", listed.read_text()))
    places.prepare_home(pip)
    return Core(version, own_python, own, places.programs(version, own, own_python))


@pytest.fixture(scope="session")
def sanity() -> dict[str, str]:
    """Output of each successful ansible-test sanity."""
    places.prepare_checkout()
    return {}


@pytest.mark.parametrize("version", EACH_CORE)
def test_sanity(version: str, sanity: dict[str, str]) -> None:
    sanity[version] = core(version).ansible_test("sanity", "--local", *NOT_SHIPPED)
    for test in ("pylint", "validate-modules"):
        assert f'Running sanity test "{test}"' in sanity[version]
    assert "Required program" not in sanity[version], "a test of ansible-test misses its program and did not run"


@pytest.mark.parametrize("target", places.PYTHONS)
@pytest.mark.parametrize("version", EACH_CORE)
def test_sanity_compiled_and_imported_it(version: str, target: str, sanity: dict[str, str]) -> None:
    python(target)
    of_controller(version)
    assert version in sanity, f"ansible-test sanity of {version} did not pass"
    for test in ("compile", "import"):
        assert f'Running sanity test "{test}" on Python {target}\n' in sanity[version]


@pytest.mark.usefixtures("sanity")
@pytest.mark.parametrize("version", CORES)
def test_units(version: str) -> None:
    own = core(version)
    output = own.ansible_test("units", "--local", "--requirements", "--python", own.python)
    passed = re.search(r"=+ (\d+) passed", output)
    assert passed is not None and int(passed[1]) > 2000, output[-300:]


OF_CONTROLLERS = ("_callback", "_report")


@pytest.mark.parametrize("version", ONLY_TARGETS)
def test_units_on_a_managed_host(version: str) -> None:
    own = places.environment(f"target-{version}", python(version), TEST_PACKAGES)
    # action plugins, callbacks, the report of a fleet and the rendering of domains are the controller's
    areas = sorted(str(path) for path in (ROOT / "tests" / "unit").glob("_*") if path.name not in OF_CONTROLLERS)
    argv = [str(own / "python"), "-m", "pytest", "-p", "no:cacheprovider", "--ignore-glob=*/test_action*.py", *areas]
    environment = {**os.environ, "PYTHONPATH": str(places.pure_ansible(core("2.19").bin)),
                   "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(argv, cwd=ROOT, env=environment, check=False, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    (places.WORK / f"units-target-{version}.log").write_text(done.stdout)
    assert done.returncode == 0, done.stdout[-3000:]
