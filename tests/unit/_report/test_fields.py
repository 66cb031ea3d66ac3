# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text of another host is fit for a page, and absent fields are their defaults."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.fields import (
    MAX_ITEMS,
    MAX_TEXT,
    AlienError,
    Fields,
    clean,
)


@pytest.mark.parametrize(("text", "expected"), [
    ("GH200 480GB", "GH200 480GB"),
    ("tab\tand\nline", "tab\tand\nline"),
    ("\x1b[31mred\x1b[0m", "\ufffd[31mred\ufffd[0m"),
    ("a\x00b\rc\x7fd\x9be", "a\ufffdb\ufffdc\ufffdd\ufffde"),
    ("right\u202eto left\u2066\u200f", "right\ufffdto left\ufffd\ufffd"),
    ("half \ud800 of a character", "half \ufffd of a character"),
    ("two\u2028lines\ufeff", "two\ufffdlines\ufffd"),
    ("\u00fc\u4e2d\U0001f600", "\u00fc\u4e2d\U0001f600"),
    ("x" * MAX_TEXT, "x" * MAX_TEXT),
    ("x" * (MAX_TEXT + 1), "x" * MAX_TEXT + " [...]"),
])
def test_clean(text: str, expected: str) -> None:
    assert clean(text) == expected


@given(text=st.text(alphabet=st.characters(), max_size=40))
def test_clean_text_can_be_written_and_shown(text: str) -> None:
    found = clean(text)
    found.encode("utf-8")
    assert all(character in "\t\n" or ord(character) >= 32 for character in found)
    assert clean(found) == found


@pytest.mark.parametrize("value", [{}, {"name": None}])
def test_absent_fields(value: dict[str, object]) -> None:
    fields = Fields(value, "")
    assert (fields.text("name", "-"), fields.maybe_text("name"), fields.whole("name", 7), fields.maybe_whole("name"),
            fields.maybe_number("name"), fields.flag("name"), fields.texts("name"), fields.wholes("name"),
            fields.objects("name"), fields.object("name").has("x"), fields.has("name")) == (
        "-", None, 7, None, None, False, (), (), [], False, False)
    with pytest.raises(AlienError, match=r"^name is missing\.$"):
        fields.text("name")


@pytest.mark.parametrize(("value", "fits"), [(-2, False), (-1, True), (1 << 64, True), ((1 << 64) + 1, False)])
def test_range_of_whole_numbers(value: int, fits: bool) -> None:
    fields = Fields({"name": value, "names": [value]}, "it")
    if fits:
        assert (fields.whole("name", 0), fields.wholes("names")) == (value, (value,))
        return
    with pytest.raises(AlienError, match=r"^it\.name is out of range\.$"):
        fields.whole("name", 0)
    with pytest.raises(AlienError, match=r"^it\.names is not a list of whole numbers\.$"):
        fields.wholes("names")


@pytest.mark.parametrize(("count", "fits"), [(MAX_ITEMS, True), (MAX_ITEMS + 1, False)])
def test_lists_end(count: int, fits: bool) -> None:
    fields = Fields({"names": ["a"] * count}, "")
    if fits:
        assert len(fields.texts("names")) == count
        return
    with pytest.raises(AlienError, match=rf"^names has {count} items, more than {MAX_ITEMS}\.$"):
        fields.texts("names")


def test_a_number_may_be_whole() -> None:
    fields = Fields({"a": 3, "b": 0.25, "c": 0, "d": 1 << 64}, "")
    assert [fields.maybe_number(name) for name in "abcd"] == [3.0, 0.25, 0.0, 2.0 ** 64]


@pytest.mark.parametrize("value", [-0.5, (1 << 64) + 1, float("inf"), float("nan"), 10 ** 400])
def test_a_number_out_of_range(value: float) -> None:
    with pytest.raises(AlienError, match=r"^name is out of range\.$"):
        Fields({"name": value}, "").maybe_number("name")
