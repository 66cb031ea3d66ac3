# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host gets from the controller with the options of dkms_module: the source, or what was built elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable

from ansible.errors import AnsibleActionFail, AnsibleError

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.module import require_usable, shorten
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.collect import collect
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.source import SourceTree, pack
from ansible_collections.nvgrace.passthrough.plugins.module_utils._kmod.store import read_store

SHIPPED_SOURCE = Path(__file__).resolve().parents[2] / "files" / "kmod"


def source_tree(arguments: Mapping[str, Any], find: Callable[[str, str], str]) -> SourceTree:
    """The source that ``arguments`` name, or the collection's; ``find`` looks for a file as Ansible's own actions do.
    Raises AnsibleActionFail."""
    source = arguments.get("source")
    try:
        require_usable(dict(arguments))
        return collect(find("files", str(source)) if source else str(SHIPPED_SOURCE))
    except (PassthroughError, AnsibleError) as error:
        # from None: Ansible would append the long message of the cause
        raise AnsibleActionFail(shorten(str(error), dict(arguments))) from None


def identity(arguments: Mapping[str, Any], find: Callable[[str, str], str]) -> dict[str, Any]:
    """What a payload is told from another by: the source's hash, and what there is to hand out in place of it.
    Raises AnsibleActionFail, or PassthroughError for a damaged directory."""
    return _identity(arguments, source_tree(arguments, find))


def payload(arguments: Mapping[str, Any], find: Callable[[str, str], str]) -> dict[str, Any]:
    """What a host gets beside the options. Raises as ``identity`` does."""
    tree = source_tree(arguments, find)
    known = _identity(arguments, tree)
    return known if "_prebuilt" in known else {**known, "_source": pack(tree)}


def _identity(arguments: Mapping[str, Any], tree: SourceTree) -> dict[str, Any]:
    known: dict[str, Any] = {"_source_sha256": tree.sha256}
    if arguments.get("prebuilt") is not None:
        entries = read_store(local_directory(arguments, "prebuilt"))
        known.update(_aliases=list(tree.aliases()), _prebuilt=[entry.as_json() for entry in entries])
    return known


def local_directory(arguments: Mapping[str, Any], option: str) -> str:
    """The directory on the controller that ``option`` names. Raises AnsibleActionFail."""
    directory = os.path.expanduser(str(arguments.get(option) or ""))
    if not os.path.isabs(directory) or "\0" in directory:
        raise AnsibleActionFail(f"{option!r} must be an absolute path of a directory on the controller.")
    return directory
