# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""No file above 400 lines and no function above 60, but for those that are listed here, each with its reason.

An exception that is not needed any more is a problem, too.
"""

from __future__ import annotations

import ast
import fnmatch
import sys
from collections.abc import Iterator

from gate import ROOT, finish, tracked

MAX_FILE = 400
MAX_FUNCTION = 60
# A pattern of files that may be longer, and why.
LONG_FILES = {
    "LICENSES/*": "the texts of the licences",
    "tests/unit/_domain/golden/*.xml": "whole domains, compared byte for byte",
    "tests/domains/golden/*.args": "every argument that libvirt gives QEMU, compared byte for byte",
    "docs/schemas/*.json": "one schema is one document",
    "tests/report/records/*.json": "records of emulated hosts, as they were written",
    "docs/troubleshooting.md": "an entry for each message of the code",
    "docs/kernel-module.md": "the contract of the module on one page, with the tables that prove it",
    "tests/unit/_gpu/test_binding.py": "one table of cases over the fixtures that it begins with",
    "tests/unit/_kmod/test_handout.py": "one table of cases over the fixtures that it begins with",
    "tests/unit/_kmod/test_present.py": "one table of cases over the fixtures that it begins with",
    "tests/unit/_vfio/test_verify.py": "one table of cases over the fixtures that it begins with",
    "tests/unit/lab/test_gpu.py": "one table of cases over the fixtures that it begins with",
}


def long_functions(source: str) -> Iterator[str]:
    """Functions of a Python source that are too long, with their lines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION:
                yield f"{node.name} has {lines} lines, more than {MAX_FUNCTION}"


def is_python(name: str, text: str) -> bool:
    return name.endswith(".py") or text.startswith("#!/usr/bin/env python3")


def main() -> int:
    problems: list[str] = []
    unused = set(LONG_FILES)
    for name in tracked(new=True):
        try:
            text = (ROOT / name).read_text()
        except UnicodeDecodeError:
            continue  # tables of firmware and the like, as bytes
        lines = text.count("\n")
        if lines > MAX_FILE:
            allowed = {pattern for pattern in LONG_FILES if fnmatch.fnmatch(name, pattern)}
            unused -= allowed
            if not allowed:
                problems.append(f"{name} has {lines} lines, more than {MAX_FILE}")
        if is_python(name, text):
            problems += [f"{name}: {found}" for found in long_functions(text)]
    problems += [f"{pattern} is not above {MAX_FILE} lines and needs no exception" for pattern in sorted(unused)]
    return finish(problems, f"{len(LONG_FILES)} exceptions, ")


if __name__ == "__main__":
    sys.exit(main())
