# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exception family of the collection."""

from __future__ import annotations

from typing import Any


class PassthroughError(Exception):
    """Something that the operator has to know, in one sentence that says what was found and what to do.

    Modules turn it into ``fail_json``; ``details`` become extra keys of the result.
    """

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class CommandError(PassthroughError):
    """A program that we ran on the host ended with an unexpected exit status or ran out of time."""
