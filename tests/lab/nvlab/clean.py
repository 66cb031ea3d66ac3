# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Giving the machine back: every lab stopped, nothing mounted, nothing registered, nothing left on the disk."""

from __future__ import annotations

from . import lifecycle, state
from .cache import BUILD, KERNELS, LABS, Cache, remove_tree
from .image import unregister_emulation


def clean(cache: Cache) -> None:
    """Stop every lab of this cache and remove the cache. Packages that were installed stay."""
    if not cache.root.exists():
        return
    for lab in state.load_all(cache):
        lifecycle.stop(cache, lab.spec.name)
    with cache.lock(BUILD), cache.lock(KERNELS), cache.lock(LABS):
        for purpose in (BUILD, KERNELS):
            cache.remove_leftovers(purpose)
        unregister_emulation(cache.root)
        remove_tree(cache.root)
