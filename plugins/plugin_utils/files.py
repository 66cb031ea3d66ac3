# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are written on the controller."""

from __future__ import annotations

import os
import tempfile

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError


def write_atomic(path: str, text: str) -> None:
    """A reader sees the old report or the new one, never half of it. The directory is made. Raises PassthroughError."""
    directory = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(directory, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".report-", dir=directory)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise PassthroughError(f"The report {path} cannot be written: {error.strerror}.") from error
