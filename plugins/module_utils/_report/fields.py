# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads fields of plain data that may be anything: the right type, or one sentence with the place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Optional

from .._core.errors import PassthroughError

# Longer than any message of the collection, whose own messages end at 1,000 characters.
MAX_TEXT = 2000
MAX_ITEMS = 4096
_MAX_WHOLE = 1 << 64
# What a terminal, a browser or a metrics file must not get from another host: control characters but tab and newline,
# halves of characters, and what changes the direction of the text around it.
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


class AlienError(PassthroughError):
    """Data that is not what it should be."""


def clean(text: str) -> str:
    """``text`` without characters that are unfit for a page, and cut where it is longer than a page has room for."""
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]} [...]"
    return _UNFIT.sub("\ufffd", text)


class Fields:
    """A dictionary of unknown origin. Every method raises AlienError where the field has another type.

    A field that is absent or null is the ``default``; without one it is an error.
    """

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, Mapping):
            raise AlienError(f"{path or 'it'} is not a dictionary.")
        self._value = value
        self._path = path

    def _at(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def _get(self, name: str, kind: type, article: str) -> Any:
        value = self._value.get(name)
        if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise AlienError(f"{self._at(name)} is not {article}.")
        return value

    def text(self, name: str, default: Optional[str] = None) -> str:
        value = self.maybe_text(name)
        if value is None:
            if default is None:
                raise AlienError(f"{self._at(name)} is missing.")
            return default
        return value

    def one_of(self, name: str, known: tuple[str, ...]) -> str:
        value = self.text(name)
        if value not in known:
            raise AlienError(f"{self._at(name)} is {value!r}, which is none of {', '.join(known)}.")
        return value

    def maybe_text(self, name: str) -> Optional[str]:
        value = self._get(name, str, "text")
        return None if value is None else clean(value)

    def whole(self, name: str, default: int) -> int:
        value = self.maybe_whole(name)
        return default if value is None else value

    def maybe_whole(self, name: str, least: int = -1) -> Optional[int]:
        value: Optional[int] = self._get(name, int, "a whole number")
        if value is not None and not least <= value <= _MAX_WHOLE:
            raise AlienError(f"{self._at(name)} is out of range.")
        return value

    def maybe_number(self, name: str) -> Optional[float]:
        value = self._value.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise AlienError(f"{self._at(name)} is not a number.")
        if not 0 <= value <= _MAX_WHOLE:
            raise AlienError(f"{self._at(name)} is out of range.")
        return float(value)

    def flag(self, name: str) -> bool:
        return bool(self._get(name, bool, "true or false"))

    def object(self, name: str) -> Fields:
        """The dictionary of this name; an empty one where it is absent."""
        return Fields(self._get(name, dict, "a dictionary") or {}, self._at(name))

    def objects(self, name: str) -> list[Fields]:
        return [Fields(item, f"{self._at(name)}[{number}]") for number, item in enumerate(self._items(name))]

    def texts(self, name: str) -> tuple[str, ...]:
        items = self._items(name)
        if not all(isinstance(item, str) for item in items):
            raise AlienError(f"{self._at(name)} is not a list of texts.")
        return tuple(clean(item) for item in items)

    def wholes(self, name: str) -> tuple[int, ...]:
        items = self._items(name)
        if not all(isinstance(item, int) and not isinstance(item, bool) and -1 <= item <= _MAX_WHOLE for item in items):
            raise AlienError(f"{self._at(name)} is not a list of whole numbers.")
        return tuple(items)

    def has(self, name: str) -> bool:
        return self._value.get(name) is not None

    def _items(self, name: str) -> list[Any]:
        items = self._get(name, list, "a list") or []
        if len(items) > MAX_ITEMS:
            raise AlienError(f"{self._at(name)} has {len(items)} items, more than {MAX_ITEMS}.")
        return list(items)
