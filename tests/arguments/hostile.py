# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values that nobody should give, and where in the arguments of a module they can stand."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

MANY = 10 * 1000 * 1000


def _nested(depth: int) -> Any:
    value: Any = "deep"
    for _level in range(depth):
        value = [value]
    return value


VALUES: dict[str, Any] = {
    "nothing": None, "empty": "", "blank": " ", "quote": "'", "double quote": '"', "quotes": "a'b\"c`d",
    "newline": "a\nb", "carriage return": "a\r\nb", "tab": "a\tb", "escape": "\x1b[31mred\x07", "delete": "a\x7fb",
    "up": "../../../../etc/passwd", "up from the root": "/../../etc/shadow", "dots": "..", "dot": ".", "root": "/",
    "absolute": "/etc/nvgrace-fuzz", "backslash": "..\\..\\x", "nul": "a\0b", "only nul": "\0",
    "substitution": "$(touch /tmp/nvgrace-fuzz)", "backquotes": "`touch /tmp/nvgrace-fuzz`", "semicolon": "; reboot",
    "pipe": "| tee /etc/nvgrace-fuzz", "redirect": "> /etc/nvgrace-fuzz", "option": "-rf", "long option": "--help",
    "glob": "*", "percent": "%s%n%x", "braces": "{{ 7 * 7 }}", "markup": "</devices><devices>", "cdata": "]]>",
    "entity": "&x;&#0;",
    "declaration": "<!DOCTYPE x SYSTEM 'file:///etc/passwd'>",
    "right to left": "0009:01\u202e00.0", "zero width": "vfio\u200b-pci",
    "emoji": "\U0001f4a5\U0001f468\u200d\U0001f469",
    "wide digits": "\uff11\uff10",
    "half of a pair": "a\ud800b", "half of a pair, low": "\udcff", "noncharacter": "\uffff",
    "combining": "e" + "\u0301" * 500, "10 MB": "A" * MANY, "10 MB of newlines": "\n" * MANY, "64 KiB": "B" * 65536,
    "a line of 300": "C" * 300, "minus one": -1, "zero": 0, "2^31": 1 << 31, "2^63": 1 << 63, "2^64": 1 << 64,
    "-2^63": -(1 << 63), "400 digits": 10 ** 400, "400 digits as text": "9" * 400, "fraction": 0.5, "huge": 1e308,
    "not a number": float("nan"), "endless": float("inf"), "yes": True, "no": False, "list": [], "dict": {},
    "list in a list": [["x"]],
    "a hundred lists": _nested(100), "dict in a dict": {"a": {"b": {"c": "\0"}}},
    "ten thousand": ["x"] * 10000, "list of dicts": [{"address": "\n", "x": "y"}],
    "keys": {"../x": 1, "a\nb": 2, "": 3},
    "list of nothing": [None], "number as text": "0x10", "exponent": "1e9", "octal": "0o17", "underscore": "1_000",
}

# A value that an option of a type accepts, where the module's own good arguments have none.
_GOOD: dict[str, Any] = {"str": "x", "path": "/x", "int": 1, "bool": True, "list": [], "dict": {}, "raw": "x",
                         "float": 1.0}


def places(spec: dict[str, Any], path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each option of an argument spec, its suboptions and the items of its lists included."""
    for name, option in sorted(spec.items()):
        here = (*path, name)
        yield here
        kind = option.get("type", "str")
        inner = option.get("options") or option.get("suboptions")
        if kind == "list":
            yield (*here, 0)
            if inner:
                yield from places(inner, (*here, 0))
        elif kind == "dict" and inner:
            yield from places(inner, here)


def with_value(good: dict[str, Any], spec: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy of the good arguments with one value replaced; what is missing on the way is made."""
    arguments = copy.deepcopy(good)
    target: Any = arguments
    options: Any = spec
    for position, step in enumerate(path[:-1]):
        following = path[position + 1]
        if isinstance(step, str):
            option = options.get(step, {})
            options = option.get("options") or option.get("suboptions") or {}
            empty: Any = [] if isinstance(following, int) else _required(options)
            if target.get(step) is None:
                target[step] = empty
            target = target[step]
        else:
            if not target:
                target.append(_required(options))
            target = target[step]
    last = path[-1]
    if isinstance(last, int):
        target[:] = [value]
    else:
        target[last] = value
    return arguments


def _required(options: dict[str, Any]) -> dict[str, Any]:
    return {name: (option.get("choices") or [_GOOD[option.get("type", "str")]])[0] for name, option in options.items()
            if option.get("required")}
