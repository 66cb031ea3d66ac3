# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The flow of docs/architecture.md, as far as imports alone (import-linter, pyproject.toml) do not show it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
UTILS = ROOT / "plugins" / "module_utils"
MODULES = sorted((ROOT / "plugins" / "modules").glob("*.py"))
AREAS = sorted(path for path in UTILS.glob("_*") if path.is_dir())
CONTRACT = (ROOT / "pyproject.toml").read_text()
# Those that import-linter keeps from the operating system: one list for both.
PLANNERS = re.findall(r'module_utils\.(_\w+\.\w+)",$', CONTRACT.split("source_modules = [")[1].split("]")[0],
                      re.MULTILINE)
# Lines of code of a module file beside its documentation
MAX_CODE = 150
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
# What a role may do beside calling our modules: order, refuse, tell.
FLOW = {"assert", "debug", "fail", "import_role", "import_tasks", "include_role", "include_tasks", "meta", "set_fact"}
# and what other modules do better than ours would
OTHERS = {
    "gpu_host": {"reboot"},
    # packages of the distribution, and the note of which were installed
    "gpu_kmod": {"package", "file", "lineinfile"},
    # the packages of that note; what firmware says to a certificate; what is left of our state
    "gpu_restore": {"package", "slurp", "command", "file"},
}
# Filters in a row that a role may need to hand over what a module has found. What takes more is a module's work.
MAX_FILTERS = 3
LONG_CHAINS = {
    "gpu_host/tasks/reboot.yml": "names of VMs for a message",
    "gpu_kmod/vars/main.yml": "ids from one module as another asks for them",
}


def imported(tree: ast.AST, area: str) -> set[str]:
    """Other areas that a source in an area imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level == 2 or "module_utils._" in (node.module or "")):
            path = (node.module or "").split("module_utils.")[-1]
            found |= {path.split(".")[0]} if path else {alias.name for alias in node.names}
    return found - {area}


def drawn() -> dict[str, set[str]]:
    """The arrows of the page's picture, by their start."""
    picture = PAGE.split("```mermaid")[1].split("```")[0]
    arrows: dict[str, set[str]] = {}
    for start, ends in re.findall(r"^\s+(_\w+) --> (.+)$", picture, re.MULTILINE):
        arrows[start] = set(ends.split(" & "))
    return arrows


def reads_in(tree: ast.AST) -> Iterator[str]:
    """Calls by which a planner would look at the host, or change it, while it plans. What stands in a function within
    a function, or in a lambda, is a step's own, and runs when the plan is carried out."""
    for function in ast.iter_child_nodes(tree):
        if isinstance(function, ast.ClassDef):
            yield from reads_in(function)
        elif isinstance(function, ast.FunctionDef):
            yield from _calls(function.body)


def _calls(nodes: list[ast.stmt]) -> Iterator[str]:
    waiting: list[ast.AST] = list(nodes)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in ("open", "exec", "eval", "__import__") or re.match(r"(self\._?)?host\.", name):
                yield f"{node.lineno}: {name}"
        waiting += ast.iter_child_nodes(node)


@pytest.mark.parametrize("area", AREAS, ids=lambda path: path.name)
def test_the_picture_shows_what_an_area_imports(area: Path) -> None:
    found = set().union(*(imported(ast.parse(path.read_text()), area.name) for path in area.glob("*.py")))
    assert drawn().get(area.name, set()) == found


def test_the_picture_shows_no_other_area() -> None:
    assert set(drawn()) <= {path.name for path in AREAS}


@pytest.mark.parametrize("name", PLANNERS)
def test_a_planner_neither_reads_nor_writes(name: str) -> None:
    path = UTILS / f"{name.replace('.', '/')}.py"
    assert list(reads_in(ast.parse(path.read_text()))) == []


def test_every_planner_is_in_the_contract() -> None:
    assert len(PLANNERS) >= 10
    assert {f"{path.parent.name}.{path.stem}" for path in UTILS.rglob("*planner.py")} <= set(PLANNERS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_holds_no_logic(path: Path) -> None:
    """Its own functions hand over: no loop over what was read, no file, and little code at all."""
    source = path.read_text()
    tree = ast.parse(source)
    documentation = sum((node.end_lineno or 0) - node.lineno + 1 for node in tree.body
                        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant))
    assert len(source.splitlines()) - documentation <= MAX_CODE
    assert list(reads_in(tree)) == []
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, (ast.While, ast.Try))]


@pytest.mark.parametrize("source", ["def plan():\n    open('x')",
                                    "class A:\n    def plan(self):\n        self._host.run('x')",
                                    "def plan(host):\n    return [host.read_text(x) for x in y]"])
def test_reads_are_found(source: str) -> None:
    assert list(reads_in(ast.parse(source)))


@pytest.mark.parametrize("source", ["def plan(p):\n    return Step(lambda host: host.run(p))",
                                    "def plan(p):\n    def apply(host):\n        host.run(p)\n    return apply"])
def test_steps_are_no_reads(source: str) -> None:
    assert list(reads_in(ast.parse(source))) == []


def used(tasks: object) -> Iterator[str]:
    """Full names of the modules in a list of tasks, those in blocks as well."""
    for task in tasks if isinstance(tasks, list) else []:
        yield from (key for key in task if "." in key)
        for part in ("block", "rescue", "always"):
            yield from used(task.get(part))


def long_chains(text: str) -> list[str]:
    """Expressions of Jinja that filter more often than is allowed; default and bool only say what nothing means."""
    expressions = re.findall(r"{{.*?}}|{%.*?%}", text, re.DOTALL)
    return [found for found in expressions if len(re.findall(r"\|\s*(?!default\b|bool\b)\w", found)) > MAX_FILTERS]


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_a_role_leaves_the_work_to_modules(role: Path) -> None:
    allowed = {f"ansible.builtin.{name}" for name in FLOW | OTHERS.get(role.name, set())}
    files = [*role.glob("tasks/*.yml"), *role.glob("handlers/*.yml")]
    found = {name for path in files for name in used(yaml.safe_load(path.read_text()))}
    assert {name for name in found if not name.startswith("nvgrace.passthrough.")} <= allowed
    assert any(name.startswith("nvgrace.passthrough.") for name in found)


def test_no_role_works_in_jinja() -> None:
    parts = ("tasks", "vars", "handlers")
    files = [path for role in ROLES for path in role.rglob("*.yml") if path.parent.name in parts]
    found = {str(path.relative_to(ROOT / "roles")) for path in files if long_chains(path.read_text())}
    assert found == set(LONG_CHAINS)


@pytest.mark.parametrize(("text", "found"), [("{{ a | map('x') | unique | sort | list }}", 1),
                                             ("{{ a | map('x') | unique | list | default([]) }}", 0),
                                             ("{{ a | map('x') }} {{ b | unique | sort | list }}", 0)])
def test_long_chains_are_found(text: str, found: int) -> None:
    assert len(long_chains(text)) == found
