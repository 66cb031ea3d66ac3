# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The one exception family of the lab."""

from __future__ import annotations


class LabError(Exception):
    """One sentence for the user: what was found and what to do. The entry point prints it and exits with 1."""


class UsageError(LabError):
    """The request itself is wrong and nothing was changed. The entry point prints it and exits with 2."""
