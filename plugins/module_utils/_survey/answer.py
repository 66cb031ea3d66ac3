# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module would have answered, as it travels to the controller and through the variables of a play.

It is packed, because Ansible would copy and template the facts of a whole host for each task that they are handed to.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""The facts of a host with eight GPUs have some 100 KiB."""


@dataclass(frozen=True)
class Answer:
    """``result`` is what the module returns for ``arguments``, which are a task's as they stand, without defaults."""

    arguments: Mapping[str, Any]
    result: Mapping[str, Any]

    def serves(self, arguments: Mapping[str, Any]) -> bool:
        """Whether a task with these arguments would ask the same. None and an option that is left out are the same."""
        return bool(_given(self.arguments) == _given(arguments))

    def pack(self) -> str:
        text = json.dumps({"arguments": self.arguments, "result": self.result}, default=str)
        return base64.b64encode(zlib.compress(text.encode(), 6)).decode("ascii")


def domain_key(name: str) -> str:
    """The name of the answer for a domain, of which a host may have several."""
    return f"domain_xml {name}"


def domain_question(name: str, xml_sha256: str, autostart: Optional[bool], define: bool = True,
                    dest: Optional[str] = None) -> dict[str, Any]:
    """What tells one call of domain_xml from another: the XML by its hash."""
    return {"name": name, "xml_sha256": xml_sha256, "autostart": autostart, "define": define, "dest": dest or None}


def unpack_answer(packed: Any) -> Optional[Answer]:
    """None for what no Answer was packed as: the host is asked then."""
    try:
        inflater = zlib.decompressobj()
        text = inflater.decompress(base64.b64decode(packed, validate=True), MAX_ANSWER_BYTES)
        data = json.loads(text) if inflater.eof else None
    except (TypeError, ValueError, zlib.error, RecursionError):
        return None
    if not isinstance(data, dict) or not all(isinstance(data.get(part), dict) for part in ("arguments", "result")):
        return None
    return Answer(data["arguments"], data["result"])


def _given(value: Any) -> Any:
    """The value as JSON would bring it back, without what is None in a mapping."""
    if isinstance(value, Mapping):
        return {str(name): _given(item) for name, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_given(item) for item in value]
    return value
