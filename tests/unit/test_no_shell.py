# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""No shell anywhere: neither in the plugins, nor in the tasks."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))
TASKS = sorted([*(ROOT / "playbooks").rglob("*.yml"), *(ROOT / "roles").rglob("tasks/*.yml"),
                *(ROOT / "roles").rglob("handlers/*.yml"), ROOT / "site.yml"])

_SHELL_CALLS = {"os.system", "os.popen", "os.spawnlp", "os.execlp", "subprocess.getoutput",
                "subprocess.getstatusoutput", "commands.getoutput", "pty.spawn", "asyncio.create_subprocess_shell"}
_SHELL_KEYWORDS = {"shell", "use_unsafe_shell"}
_SHELLS = {"sh", "bash", "dash", "ash", "ksh", "zsh"}
_SHELL_MODULES = {"shell", "raw", "script", "expect"}
_METACHARACTERS = re.compile(r"[;&|<>`$*?\\\n]")


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def shells_in(source: str) -> list[str]:
    """What in a Python source would start a shell, with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            if dotted(node.func) in _SHELL_CALLS:
                found.append(f"{node.lineno}: {dotted(node.func)}")
            for keyword in node.keywords:
                off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg in _SHELL_KEYWORDS and not off:
                    found.append(f"{node.lineno}: {keyword.arg}")
            # a command as one text is split, or worse, by whoever runs it
            if dotted(node.func).endswith(".run_command") and node.args and not isinstance(
                    node.args[0], (ast.List, ast.Tuple, ast.Name, ast.Attribute)):
                found.append(f"{node.lineno}: run_command of a text")
        elif isinstance(node, (ast.List, ast.Tuple)) and node.elts:
            first = node.elts[0]
            if isinstance(first, ast.Constant) and str(first.value).rsplit("/", 1)[-1] in _SHELLS:
                found.append(f"{node.lineno}: {first.value} as a program")
    return found


def tasks_in(value: Any) -> list[dict[str, Any]]:
    """All tasks of a document, those of blocks and plays included."""
    if isinstance(value, list):
        return [task for item in value for task in tasks_in(item)]
    if not isinstance(value, dict):
        return []
    inner = [name for name in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers")
             if name in value]
    return [task for name in inner for task in tasks_in(value[name])] if inner else [value]


def shell_of(task: dict[str, Any]) -> str:
    """What of a task is a shell, or a command that only a shell would read right; empty where nothing is."""
    for key, value in task.items():
        short = str(key).rsplit(".", 1)[-1]
        if short in _SHELL_MODULES and (short == key or str(key).startswith("ansible.")):
            return str(key)
        if short == "command":
            words = value.get("argv") if isinstance(value, dict) else None
            if words is None:
                text = value.get("cmd", "") if isinstance(value, dict) else str(value)
                if _METACHARACTERS.search(re.sub(r"\{\{.*?\}\}", "", text)):
                    return f"command: {text}"
            elif not isinstance(words, str) and str(words[0]).rsplit("/", 1)[-1] in _SHELLS:
                return f"command: {words[0]}"
    return ""


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_plugin_starts_a_shell(path: Path) -> None:
    assert shells_in(path.read_text()) == []


@pytest.mark.parametrize("path", TASKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_task_starts_a_shell(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        assert [found for found in map(shell_of, tasks_in(document)) if found] == []


@pytest.mark.parametrize("source", [
    "subprocess.run(x, shell=True)", "subprocess.Popen(x, shell=wanted)", "os.system('x')", "os.popen('x')",
    "module.run_command('ls ' + x, use_unsafe_shell=True)", "module.run_command(f'ls {x}')",
    "run(['/bin/sh', '-c', x])", "host.run(('bash', '-c', x))", "subprocess.getoutput(x)",
])
def test_shells_are_found(source: str) -> None:
    assert shells_in(source)


@pytest.mark.parametrize("source", [
    "subprocess.run([x], shell=False)", "module.run_command(['ls', x])", "x = ['show', 1]"])
def test_what_is_no_shell(source: str) -> None:
    assert shells_in(source) == []


@pytest.mark.parametrize("task", [
    {"shell": "ls"}, {"ansible.builtin.shell": {"cmd": "ls"}}, {"ansible.builtin.raw": "ls"}, {"command": "ls | wc"},
    {"ansible.builtin.command": {"cmd": "a; b"}}, {"ansible.builtin.command": {"argv": ["/bin/sh", "-c", "x"]}},
])
def test_shell_tasks_are_found(task: dict[str, Any]) -> None:
    assert [shell_of(item) for item in tasks_in([{"hosts": "all", "tasks": [{"block": [task]}]}])] != [""]


@pytest.mark.parametrize("task", [{"ansible.builtin.command": "ls {{ a | b }}"}, {"nvgrace.passthrough.gpu_info": {}},
                                  {"ansible.builtin.command": {"argv": ["ls", "a b; c"]}}])
def test_tasks_without_shell(task: dict[str, Any]) -> None:
    assert shell_of(task) == ""


def test_there_is_something_to_look_at() -> None:
    assert len(PLUGINS) > 50 and len(TASKS) > 8
