# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side: reads the source that dkms_module ships."""

from __future__ import annotations

import os

from .._core.errors import PassthroughError
from .source import SourceTree, make_tree

_NO_SOURCE = (".o", ".ko", ".mod", ".mod.c", ".a", ".symvers", ".order", ".cmd", ".md", ".orig", ".rej", "~")
_NO_SOURCE_DIRS = ("tests",)


def collect(directory: str) -> SourceTree:
    """The files below ``directory`` that a build needs.

    Left out are hidden files, build products, ``tests`` and Markdown, so that none of them causes a rebuild on the
    hosts. Raises PassthroughError for a directory without dkms.conf, a link, a name or size that is not a source's.
    """
    if not os.path.isfile(os.path.join(directory, "dkms.conf")):
        raise PassthroughError(f"{directory} on the controller has no dkms.conf: 'source' must name the directory of "
                               "a DKMS package.")
    files: dict[str, bytes] = {}
    for parent, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if name not in _NO_SOURCE_DIRS and not name.startswith(".")]
        for name in [*directories, *names]:
            path = os.path.join(parent, name)
            if os.path.islink(path):
                raise PassthroughError(f"{path} is a symbolic link: replace it by what it leads to, links are not "
                                       "shipped.")
            if name in names and not name.startswith(".") and not name.endswith(_NO_SOURCE):
                files[os.path.relpath(path, directory)] = _read(path)
    return make_tree(files)


def _read(path: str) -> bytes:
    if not os.path.isfile(path):
        raise PassthroughError(f"{path} on the controller is not a regular file: remove it.")
    try:
        with open(path, "rb") as handle:
            return handle.read()
    except OSError as error:
        raise PassthroughError(f"{path} on the controller cannot be read: {error.strerror}.") from error
