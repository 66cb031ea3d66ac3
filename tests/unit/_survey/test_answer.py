# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""An answer on its way to the controller, and which tasks it is for."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._survey.answer import (
    MAX_ANSWER_BYTES,
    Answer,
    domain_question,
    unpack_answer,
)

ARGUMENTS = {"gpus": [{"address": "0009:01:00.0", "expected_memory": 1 << 36}], "layout": "auto", "timeout": None}
RESULT = {"changed": False, "devices": [{"verdict": "ok"}], "elapsed": 0.1}


def packed(data: Any) -> str:
    return base64.b64encode(zlib.compress(json.dumps(data).encode())).decode()


def test_there_and_back() -> None:
    answer = unpack_answer(Answer(ARGUMENTS, RESULT).pack())
    assert answer == Answer(ARGUMENTS, RESULT)
    assert answer.serves(ARGUMENTS)


@pytest.mark.parametrize(("arguments", "serves"), [
    ({**ARGUMENTS, "timeout": 5}, False),
    ({"gpus": ARGUMENTS["gpus"], "layout": "auto"}, True),
    ({**ARGUMENTS, "gpus": ({"address": "0009:01:00.0", "expected_memory": 1 << 36, "product": None},)}, True),
    ({**ARGUMENTS, "gpus": [{"address": "0009:01:00.0"}]}, False),
    ({**ARGUMENTS, "gpus": [*ARGUMENTS["gpus"], {"address": "0019:01:00.0"}]}, False),  # type: ignore[misc]  # a list
    ({**ARGUMENTS, "layout": "bar2"}, False),
    ({**ARGUMENTS, "force": True}, False),
    ({}, False),
])
def test_it_serves_the_same_task_only(arguments: dict[str, Any], serves: bool) -> None:
    assert Answer(ARGUMENTS, RESULT).serves(arguments) is serves


@pytest.mark.parametrize("garbage", [
    None, 7, "", "not base64!", "YWJj", base64.b64encode(zlib.compress(b"{")).decode(), packed([]), packed({}),
    packed({"arguments": {}}), packed({"arguments": {}, "result": []}), packed({"arguments": None, "result": {}}),
    Answer(ARGUMENTS, RESULT).pack()[:-8], base64.b64encode(zlib.compress(b"[" * 200_000)).decode(),
])
def test_garbage_is_no_answer(garbage: Any) -> None:
    assert unpack_answer(garbage) is None


def test_what_would_unpack_to_megabytes_is_no_answer() -> None:
    just = Answer({}, {"text": "x" * (MAX_ANSWER_BYTES - len('{"arguments": {}, "result": {"text": ""}}'))})
    assert unpack_answer(just.pack()) == just
    bomb = Answer({}, {"text": "x" * MAX_ANSWER_BYTES}).pack()
    assert len(bomb) < 10_000
    assert unpack_answer(bomb) is None


def test_a_domain_is_told_by_its_xml() -> None:
    answer = Answer(domain_question("vm", "a" * 64, None), RESULT)
    assert answer.serves(domain_question("vm", "a" * 64, None, True, ""))
    assert not answer.serves(domain_question("vm", "b" * 64, None))
    assert not answer.serves(domain_question("vm", "a" * 64, False))
    assert not answer.serves(domain_question("vm", "a" * 64, None, dest="/etc/vm.xml"))
    assert not answer.serves(domain_question("vm", "a" * 64, None, define=False))
