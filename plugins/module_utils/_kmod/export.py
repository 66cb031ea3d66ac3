# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adapter on the builder: hands the modules that DKMS has built to the controller, uncompressed."""

from __future__ import annotations

import lzma
import os
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from typing import Any

from .._core.errors import PassthroughError
from .._core.host import Host
from .._host.certificates import certificate_der
from .facts import HostFacts, Request
from .prebuilt import MAX_MODULE_BYTES, describe_module, pack_modules
from .signing import Signing
from .source import SourceTree

_GZIP_WINDOW = 31
_TEMPORARY = "/run"


def exports(host: Host, facts: HostFacts, request: Request, tree: SourceTree, signing: Signing,
            have: Mapping[str, str], planned: bool) -> dict[str, Any]:
    """``exports``, the manifests of the targets' modules, and ``_modules``, those whose hash is not in ``have``.

    Nothing where the builds are only ``planned``.
    """
    if planned:
        return {"exports": [], "_modules": pack_modules({})}
    certificate = certificate_der(host.read_bytes(signing.pair.certificate) or b"") if signing.certificate else None
    manifests, contents = [], {}
    for release in request.targets:
        path = facts.kernel(release).builds[request.package.version] or ""
        content = read_plain(host, path)
        entry = describe_module(content, release, request.package.version, tree.sha256, certificate)
        manifests.append(entry.as_json())
        if have.get(f"{release}/{entry.machine}") != entry.sha256:
            contents[release] = content
    return {"exports": manifests, "_modules": pack_modules(contents)}


def read_plain(host: Host, path: str) -> bytes:
    """A module's content as its signature covers it: DKMS compresses what it has signed, as the kernel's own are."""
    data = host.read_bytes(path)
    if data is None:
        raise PassthroughError(f"{path} vanished: run again.")
    try:
        if path.endswith(".xz"):
            return lzma.decompress(data)
        if path.endswith(".gz"):
            return zlib.decompressobj(_GZIP_WINDOW).decompress(data, MAX_MODULE_BYTES)
    except (lzma.LZMAError, zlib.error) as error:
        raise PassthroughError(f"{path} is damaged ({error}): build it again with force.") from error
    return _zstd(host, path) if path.endswith(".zst") else data


def _zstd(host: Host, path: str) -> bytes:
    """By the program, which DKMS has used to compress it: Python has no zstd of its own before 3.14."""
    directory = tempfile.mkdtemp(prefix="nvgrace-", dir=host.path(_TEMPORARY))
    try:
        plain = os.path.join(directory, "module.ko")
        host.run(("zstd", "-d", "-q", "-o", plain, host.path(path)))
        with open(plain, "rb") as handle:
            return handle.read()
    finally:
        shutil.rmtree(directory)
