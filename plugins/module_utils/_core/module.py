# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The AnsibleModule of this collection: input that no option can mean is refused before anything looks at it, and a
refusal does not repeat ten megabytes of it."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule

from .errors import PassthroughError

MAX_TEXT = 1 << 16
MAX_VALUES = 4096
MAX_FACTS = 1 << 16
# The domain of a VM with four GPUs has more than 100,000 characters, most of them distances of NUMA nodes.
MAX_RESULT_TEXT = 1 << 20
MAX_DEPTH = 32
# The widest number that a kernel interface takes.
MAX_NUMBER = (1 << 64) - 1
MAX_MESSAGE = 1000
# What ansible-core raises for a number where a dictionary must be, and the like.
WRONG_FORM = (ArithmeticError, AttributeError, TypeError, ValueError)
_SHOWN = 60
_LONG_WORD = re.compile(r"\S{200,}")
# Arguments of the controller side of a module, which are no options: the source of the kernel module, rendered XML.
_INTERNAL = "_"


class Module(AnsibleModule):
    """An AnsibleModule that ends with one short sentence, whatever a user has put in."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        try:
            # ansible-core has no types here
            super().__init__(*arguments, **keywords)  # type: ignore[no-untyped-call,unused-ignore]
        except WRONG_FORM as error:
            _refuse(wrong_form(error))
        self._require_usable()  # again: text has become numbers

    def _load_params(self) -> None:
        try:
            super()._load_params()  # type: ignore[no-untyped-call,unused-ignore]
        except Exception as error:  # ansible-core raises nothing more special; newer ones refuse lone surrogates
            _refuse(shorten(f"The arguments of the module cannot be read: {error.__cause__ or error}", None))
        self._require_usable()

    def _require_usable(self) -> None:
        sentence = unusable({name: value for name, value in self.params.items() if not name.startswith(_INTERNAL)})
        if sentence is not None:
            _refuse(sentence)

    def fail_json(self, msg: str, **keywords: Any) -> Any:
        """As AnsibleModule's, with the user's long values shortened in the message and in the invocation."""
        given = getattr(self, "params", {})
        keywords.setdefault("invocation", {"module_args": _shorten_all(given)})
        return super().fail_json(shorten(str(msg), given), **keywords)


def _refuse(sentence: str) -> None:
    """Ends the module where fail_json cannot: it needs what is read after the parameters, and would return them all."""
    print(json.dumps({"failed": True, "msg": sentence}))
    sys.exit(1)


def wrong_form(error: Exception) -> str:
    """The sentence for a value that ansible-core's own checks stumble over."""
    return shorten(f"An option has not the form that the documentation says: {error}.", None)


def require_usable(arguments: dict[str, Any], longest: int = MAX_TEXT, most: int = MAX_FACTS) -> None:
    """For action plugins, whose arguments may be the facts of a whole host, and hold texts as long as MAX_RESULT_TEXT
    where they are results of modules. Raises PassthroughError."""
    sentence = unusable(arguments, most, longest)
    if sentence is not None:
        raise PassthroughError(sentence)


def unusable(params: dict[str, Any], most: int = MAX_VALUES, longest: int = MAX_TEXT) -> Optional[str]:
    """A sentence about the first thing in ``params`` that no option of any module can mean, or None. ``most``: values,
    ``longest``: characters of one."""
    count = 0
    waiting: list[tuple[tuple[str, ...], Any]] = [((), params)]
    while waiting:
        path, value = waiting.pop()
        count += 1
        if count > most:
            return f"The arguments hold more than {most} values: no option needs that many."
        if len(path) > MAX_DEPTH:
            return f"The arguments are nested more than {MAX_DEPTH} levels deep: no option is."
        if isinstance(value, dict):
            for name, item in value.items():
                sentence = _unusable_text(None, str(name), MAX_TEXT)
                if sentence is not None:
                    return sentence
                waiting.append(((*path, str(name)), item))
        elif isinstance(value, (list, tuple)):
            waiting += [((*path, ""), item) for item in value[:most + 1]]
        elif isinstance(value, str):
            sentence = _unusable_text(path, value, longest)
            if sentence is not None:
                return sentence
        elif isinstance(value, float) and not math.isfinite(value):
            return f"The option {_shown(path)} is {value}: no option takes that for a number."
        elif isinstance(value, int) and abs(value) > MAX_NUMBER:
            return (f"The option {_shown(path)} is a number of {len(str(abs(value)))} digits: no option takes one of "
                    "more than 64 bits.")
    return None


def _shown(path: tuple[str, ...]) -> str:
    """The name of an option's part; items of a list have none of their own."""
    return readable(".".join(name for name in path if name))[:_SHOWN * 2]


def _unusable_text(path: Optional[tuple[str, ...]], text: str, longest: int) -> Optional[str]:
    if len(text) > longest:
        return f"{_subject(path)} has {len(text)} characters: no option takes more than {longest}."
    if "\0" in text:
        return f"{_subject(path)} holds a NUL character, which neither a file name nor the kernel can: remove it."
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"{_subject(path)} holds half of a character (a lone surrogate): write it in UTF-8."
    return None


def _subject(path: Optional[tuple[str, ...]]) -> str:
    """What a sentence is about: the option at a path, or a name itself. Made for a sentence, not for each value."""
    return "The name of an option" if path is None else f"The option {_shown(path)}"


def shorten(message: str, given: Any) -> str:
    """The message on one line, with long values among those given cut, and cut itself where it is still too long."""
    for value in sorted({text for text in _texts(given) if len(text) > _SHOWN}, key=len, reverse=True):
        for form in (value, repr(value)[1:-1]):
            message = message.replace(form, form[:_SHOWN] + "...")
    message = _LONG_WORD.sub(lambda word: word[0][:_SHOWN] + "...", message)
    message = readable(" ".join(message.split("\n")).strip())
    return message if len(message) <= MAX_MESSAGE else message[:MAX_MESSAGE - 3] + "..."


def readable(text: str) -> str:
    """The text with each character escaped that a terminal would obey or not show."""
    return text if text.isprintable() else "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield str(name)
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        yield str(value)
        for item in value:
            yield from _texts(item)
    elif value is not None:
        yield str(value)


def _shorten_all(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shorten_all(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shorten_all(item) for item in value]
    if isinstance(value, str) and len(value) > MAX_MESSAGE:
        return value[:_SHOWN] + "..."
    return value
