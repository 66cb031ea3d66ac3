# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""What no module takes, and how its refusals look."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.module import (
    MAX_DEPTH,
    MAX_MESSAGE,
    MAX_NUMBER,
    MAX_RESULT_TEXT,
    MAX_TEXT,
    MAX_VALUES,
    Module,
    readable,
    require_usable,
    shorten,
    unusable,
)

SPEC = {"inner": {"type": "dict", "options": {"x": {"type": "str"}}},
        "many": {"type": "list", "elements": "str"},
        "name": {"type": "str"}, "kind": {"type": "str", "choices": ["a", "b"]}, "count": {"type": "int"}}


def nested(depth: int) -> Any:
    value: Any = "x"
    for _level in range(depth):
        value = {"a": value}
    return value


def listed(depth: int) -> Any:
    value: Any = "x"
    for _level in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("params", [
    {}, {"a": None, "b": [1, 2.5, True, {"c": "é\n\t"}]}, {"a": "x" * MAX_TEXT}, {"a": MAX_NUMBER, "b": -MAX_NUMBER},
    nested(MAX_DEPTH), {"a": listed(MAX_DEPTH - 1)}, {"a": (1 << 64) - 1}, {"a": ["x"] * (MAX_VALUES - 2)}, {"a": "💥"},
])
def test_usable(params: dict[str, Any]) -> None:
    assert unusable(params) is None


@pytest.mark.parametrize(("params", "sentence"), [
    ({"a": "x\0"}, "The option a holds a NUL character, which neither a file name nor the kernel can: remove it."),
    ({"a": {"b": ["", "x\ud800"]}},
     "The option a.b holds half of a character (a lone surrogate): write it in UTF-8."),
    ({"a": "x" * (MAX_TEXT + 1)}, "The option a has 65537 characters: no option takes more than 65536."),
    ({"a": listed(MAX_DEPTH)}, "The arguments are nested more than 32 levels deep: no option is."),
    ({"a": 1 << 64}, "The option a is a number of 20 digits: no option takes one of more than 64 bits."),
    ({"a": MAX_NUMBER + 1}, "The option a is a number of 20 digits: no option takes one of more than 64 bits."),
    ({"a": -MAX_NUMBER - 1}, "The option a is a number of 20 digits: no option takes one of more than 64 bits."),
    ({"a": ["x"] * (MAX_VALUES - 1)}, "The arguments hold more than 4096 values: no option needs that many."),
    (nested(MAX_DEPTH + 1), "The arguments are nested more than 32 levels deep: no option is."),
    ({"a": [float("inf")]}, "The option a is inf: no option takes that for a number."),
    ({"x" * (MAX_TEXT + 1): 1}, "The name of an option has 65537 characters: no option takes more than 65536."),
    ({"a": [{"b\0": 1}]}, "The name of an option holds a NUL character, which neither a file name nor the kernel can: "
                          "remove it."),
    ({"a\n" * 100: "\0"}, "The option " + "a\\n" * 40 + " holds a NUL character, which neither a file name nor the "
                          "kernel can: remove it."),
])
def test_unusable(params: dict[str, Any], sentence: str) -> None:
    assert unusable(params) == sentence


def test_facts_of_a_host_may_be_many() -> None:
    require_usable({"a": ["x"] * MAX_VALUES})
    with pytest.raises(PassthroughError, match="more than 65536 values"):
        require_usable({"a": ["x"] * 65536})


def test_results_of_modules_may_be_long() -> None:
    require_usable({"a": "x" * MAX_TEXT})
    with pytest.raises(PassthroughError, match="no option takes more than 65536"):
        require_usable({"a": "x" * (MAX_TEXT + 1)})
    require_usable({"a": "x" * MAX_RESULT_TEXT}, MAX_RESULT_TEXT)
    with pytest.raises(PassthroughError, match="no option takes more than 1048576"):
        require_usable({"a": "x" * (MAX_RESULT_TEXT + 1)}, MAX_RESULT_TEXT)
    with pytest.raises(PassthroughError, match="name of an option has 65537 characters"):
        require_usable({"x" * (MAX_TEXT + 1): 1}, MAX_RESULT_TEXT)


@pytest.mark.parametrize(("message", "values", "shown"), [
    ("plain", [], "plain"),
    ("two\nlines\n", [], "two lines"),
    ("a\tb\x1b[0m\u202e", [], "a\\tb\\x1b[0m\\u202e"),
    (f"{'v' * 70} is bad", ["v" * 70], f"{'v' * 60}... is bad"),
    (f"{'q' * 61 + chr(10)!r} is bad", ["q" * 61 + "\n"], f"'{'q' * 60}...' is bad"),
    (f"{'v' * 60} is good", ["v" * 60], f"{'v' * 60} is good"),
    # the longer one first, or its beginning would be cut out of it
    (f"{'v' * 61}{'w' * 9}", ["v" * 61, "v" * 61 + "w" * 9], f"{'v' * 60}..."),
    ("x" * 199, [], "x" * 199), (f"is {'x' * 200} now", [], f"is {'x' * 60}... now"),
    ("x " * (MAX_MESSAGE // 2 - 1) + "yz", [], "x " * (MAX_MESSAGE // 2 - 1) + "yz"),
    ("x " * (MAX_MESSAGE // 2) + "y", [], ("x " * (MAX_MESSAGE // 2))[:MAX_MESSAGE - 3] + "..."),
])
def test_shortened(message: str, values: list[str], shown: str) -> None:
    assert shorten(message, values) == shown


def test_readable_keeps_what_can_be_read() -> None:
    assert readable("Straße 日本 a b") == "Straße 日本 a b"


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setattr(basic.AnsibleModule, "log", lambda *_arguments, **_keywords: None)

    def run(arguments: dict[str, Any], message: str = "") -> dict[str, Any]:
        with patch_module_args(arguments), pytest.raises(SystemExit) as left:
            Module(argument_spec=SPEC).fail_json(message)
        assert left.value.code == 1
        loaded: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert loaded["failed"] is True
        return loaded

    return run


def test_what_cannot_be_used_never_reaches_ansible(fail: Any) -> None:
    assert fail({"name": "\0"}) == {
        "failed": True, "msg": "The option name holds a NUL character, which neither a file name nor the kernel can: "
                               "remove it."}


def test_arguments_that_cannot_be_read(fail: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise Exception("no\nJSON") from ValueError("half of a character")

    monkeypatch.setattr(basic, "_load_params", refuse)
    assert fail({}) == {"failed": True, "msg": "The arguments of the module cannot be read: half of a character"}


def test_text_that_becomes_an_endless_number(fail: Any) -> None:
    assert fail({"count": "9" * 400})["msg"] == (
        "The option count is a number of 400 digits: no option takes one of more than 64 bits.")


def test_internal_arguments_may_be_long(fail: Any) -> None:
    assert fail({"name": "x", "_ansible_tmpdir": "y" * (MAX_TEXT + 1)}, "late")["msg"] == "late"


@pytest.mark.parametrize(("arguments", "message"), [
    ({"kind": "c" * 5000}, f"value of kind must be one of: a, b, got: {'c' * 60}..."),
    ({"kind": "c\nd"}, "value of kind must be one of: a, b, got: c d"),
    ({"kind": ["e" * 3000, "f"]}, "value of kind must be one of: a, b, got: ['" + "e" * 58 + "..."),
])
def test_refusals_of_ansible_itself_are_short(fail: Any, arguments: dict[str, Any], message: str) -> None:
    assert fail(arguments)["msg"] == message


def test_a_value_that_ansible_stumbles_over(fail: Any) -> None:
    assert fail({"inner": 5})["msg"].startswith("An option has not the form that the documentation says: ")


def test_the_invocation_is_short(fail: Any) -> None:
    # ansible-core 2.21 leaves it out unless it is asked for.
    result = fail({"name": "n" * 5000, "count": 3, "many": ["m" * 5000], "_ansible_inject_invocation": True}, "no")
    given = {name: value for name, value in result["invocation"]["module_args"].items() if not name.startswith("_")}
    assert given == {
        "name": "n" * 60 + "...", "kind": None, "count": 3, "inner": None, "many": ["m" * 60 + "..."]}
