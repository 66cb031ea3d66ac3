# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every message with which the code refuses, fails or warns: of plugins (their syntax tree), reasons of verdicts, roles
and playbooks (fail and assert), the kernel module (its errors and warnings). Run it to see them all, with the places
that they come from.

A message is a text with HOLE where a value stands at run time.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
HOLE = "\0"
FAMILY = {"PassthroughError", "CommandError", "UapiError", "LayoutError", "ChildTimeoutError", "ChildKilledError",
          "DeviceInUseError", "AlienError", "_UndoneError", "AnsibleActionFail"}
# What hands on the message of another place, which is in the list from there.
_HANDED_ON = re.compile(r"(error\.message|str\(error\)|shorten\((error\.message|str\(error\)),.*)$")
# Functions whose sentences become warnings in another one.
_WARN = {"_arguments", "_blacklisted", "_by_ids", "_driverctl", "_foreign_copies", "_left_behind", "_loaded_early",
         "_modprobe", "_module_lists", "_udev", "_warnings", "open_to_everybody"}
_VALUE = re.compile(r"{{.*?}}|{%.*?%}", re.DOTALL)
_PRINT = re.compile(r'\b(?:pci|pr)_(?:err|warn)\(((?:[^()"]|"(?:[^"\\]|\\.)*"|\([^()]*\))*)\);')
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_FORMAT = re.compile(r"%#?-?\d*(?:ll|l)?[suxdi]")


@dataclass(frozen=True)
class Message:
    """``where`` is the file and line that says it."""

    where: str
    text: str

    def shown(self) -> str:
        return self.text.replace(HOLE, "...")


class UnresolvedError(Exception):
    """A message whose text the syntax tree does not tell: name it in the code, or teach this tool."""


class Plugins:
    """The syntax trees of all plugins, with their functions by name."""

    def __init__(self) -> None:
        self.trees = {path: ast.parse(path.read_text(encoding="utf-8"))
                      for path in sorted((ROOT / "plugins").rglob("*.py"))}
        self.functions: dict[str, list[ast.FunctionDef]] = {}
        for tree in self.trees.values():
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef):
                    self.functions.setdefault(node.name, []).append(node)

    def texts(self, node: ast.expr, scope: ast.AST) -> Iterator[str]:
        """The texts that an expression can have, with HOLE for what is known at run time only."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield from self._joined(node, scope)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            for left in self.texts(node.left, scope):
                yield from (left + right for right in self.texts(node.right, scope))
        elif isinstance(node, ast.IfExp):
            yield from self.texts(node.body, scope)
            yield from self.texts(node.orelse, scope)
        elif isinstance(node, ast.Subscript):
            yield from self.texts(node.value, scope)
        elif isinstance(node, ast.Name):
            yield from self._assigned(node.id, scope)
        elif isinstance(node, ast.Attribute):
            yield from self._passed(node.attr)
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield from self.texts(node.args[0], scope) if name == "shorten" else self._returned(name)
        elif isinstance(node, (ast.List, ast.ListComp)):
            for item in node.elts if isinstance(node, ast.List) else [node.elt]:
                yield from self.texts(item, scope)

    def _joined(self, node: ast.JoinedStr, scope: ast.AST) -> Iterator[str]:
        """A text that begins with another one of the same function begins with each that it can be."""
        first = node.values[0]
        begins = [HOLE]
        if isinstance(first, ast.FormattedValue) and isinstance(first.value, ast.Name):
            begins = list(self._assigned(first.value.id, scope)) or begins
        rest = "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values[1:])
        if isinstance(first, ast.Constant):
            begins = [str(first.value)]
        yield from (begin + rest for begin in begins)

    def _assigned(self, name: str, scope: ast.AST) -> Iterator[str]:
        for node in ast.walk(scope):
            if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets):
                yield from self.texts(node.value, scope)

    def _returned(self, name: str) -> Iterator[str]:
        for function in self.functions.get(name, []):
            for node in ast.walk(function):
                if isinstance(node, ast.Return) and node.value is not None and not (
                        isinstance(node.value, ast.Constant) and node.value.value is None):
                    yield from self.texts(node.value, function)

    def _passed(self, attribute: str) -> Iterator[str]:
        """What calls give for a field of that name."""
        for tree in self.trees.values():
            for node in ast.walk(tree):
                if isinstance(node, ast.keyword) and node.arg == attribute:
                    yield from self.texts(node.value, tree)

    def messages(self) -> Iterator[Message]:
        for path, tree in self.trees.items():
            where = path.relative_to(ROOT)
            for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
                for node in ast.walk(function):
                    for line, argument in _refusals(node):
                        yield from self._resolve(f"{where}:{line}", argument, function)

    def _resolve(self, where: str, argument: ast.expr, function: ast.FunctionDef) -> Iterator[Message]:
        if _HANDED_ON.match(ast.unparse(argument)):
            return
        texts = [text for text in self.texts(argument, function) if text.strip(HOLE + " .")]
        if not texts:
            raise UnresolvedError(f"{where}: {ast.unparse(argument)}")
        yield from (Message(where, text) for text in texts)


def _refusals(node: ast.AST) -> Iterator[tuple[int, ast.expr]]:
    """The line and the first argument of each exception of the family, and of _refuse of module arguments."""
    if isinstance(node, ast.Call) and node.args:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in FAMILY or name == "_refuse":
            yield node.lineno, node.args[0]


@functools.cache
def _plugins() -> Plugins:
    return Plugins()


def plugin_messages() -> list[Message]:
    return list(_plugins().messages())


def verdict_messages() -> list[Message]:
    """The reasons of verdicts that are not ok: what stands after FAIL or UNCHECKED, or as the bad side of a comparison;
    what functions return as lists of complaints; what the probes find wrong."""
    plugins = _plugins()
    found = []
    for name in ("judge", "probe", "verify"):
        path = ROOT / "plugins" / "module_utils" / "_vfio" / f"{name}.py"
        for function in [node for node in ast.walk(plugins.trees[path]) if isinstance(node, ast.FunctionDef)]:
            for node in _complaints(function):
                texts = (text for text in plugins.texts(node, function) if len(text.replace(HOLE, "")) > 12)
                found += [Message(f"{path.relative_to(ROOT)}:{node.lineno}", text) for text in texts]
    return sorted(set(found), key=lambda message: message.where)


def _complaints(function: ast.FunctionDef) -> Iterator[ast.expr]:
    returns = ast.unparse(function.returns) if function.returns else ""
    for node in ast.walk(function):
        if isinstance(node, ast.Tuple) and len(node.elts) == 3 and ast.unparse(node.elts[1]) != "OK":
            yield node.elts[2]
        elif isinstance(node, ast.Return) and node.value is not None:
            if returns in ("list[str]", "Optional[str]"):
                yield node.value
        elif isinstance(node, ast.Assign):
            if isinstance(node.targets[0], ast.Name) and node.targets[0].id in ("problems", "reason"):
                yield node.value
        elif isinstance(node, ast.Call) and returns == "list[str]" and ast.unparse(node.func).endswith(".append"):
            yield node.args[0]


def warning_messages() -> list[Message]:
    """What is put into lists of warnings, and what functions return that make one."""
    found = []
    for path, tree in _plugins().trees.items():
        for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
            for node in _warnings(function):
                found += [Message(f"{path.relative_to(ROOT)}:{node.lineno}", text)
                          for text in _plugins().texts(node, function) if len(text.replace(HOLE, "")) > 20]
    return found


def _warnings(function: ast.FunctionDef) -> Iterator[ast.expr]:
    if function.name in _WARN:
        yield from (node for node in ast.walk(function) if isinstance(node, ast.JoinedStr))
        return
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("warnings.append", "module.warn"):
            yield node.args[0]
        elif isinstance(node, (ast.Assign, ast.AugAssign)):
            target = node.target if isinstance(node, ast.AugAssign) else node.targets[0]
            if ast.unparse(target) == "warnings":
                yield node.value
        elif isinstance(node, ast.Return) and node.value is not None and function.name.endswith("warning"):
            yield node.value


def _tasks(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        for item in value:
            yield from _tasks(item)
    elif isinstance(value, dict):
        yield value
        for name in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers"):
            yield from _tasks(value.get(name))


def task_messages() -> list[Message]:
    """Of fail and assert in roles and playbooks, with what a task has to choose from in its variables. Messages of
    nothing but values hand on what a module said."""
    found = []
    for path in sorted([*(ROOT / "roles").rglob("*.yml"), *(ROOT / "playbooks").glob("*.yml")]):
        if path.parent.name not in ("tasks", "handlers", "playbooks"):
            continue
        for task in _tasks(yaml.safe_load(path.read_text(encoding="utf-8"))):
            texts = [str(task.get("ansible.builtin.fail", {}).get("msg", "")),
                     str(task.get("ansible.builtin.assert", {}).get("fail_msg", ""))]
            if any(texts):
                texts += map(str, task.get("vars", {}).values())
            for text in texts:
                text = re.sub(r"\s+", " ", _VALUE.sub(HOLE, text)).strip()
                if re.search("[A-Za-z]{3}", text):
                    found.append(Message(f"{path.relative_to(ROOT)}: {task['name']}", text))
    return found


def kernel_messages() -> list[Message]:
    """Errors and warnings of the kernel module."""
    found = []
    for path in sorted((ROOT / "files" / "kmod").glob("*.c")):
        source = path.read_text(encoding="utf-8")
        for call in _PRINT.finditer(source):
            text = "".join(_STRING.findall(call[1])).replace("\\n", "")
            line = source.count("\n", 0, call.start()) + 1
            found.append(Message(f"{path.relative_to(ROOT)}:{line}", _FORMAT.sub(HOLE, text)))
    return found


def all_messages() -> list[Message]:
    return plugin_messages() + verdict_messages() + warning_messages() + task_messages() + kernel_messages()


if __name__ == "__main__":
    for message in all_messages():
        print(f"{message.where}\t{message.shown()}")
