# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GPUs with coherent memory that the collection knows by their PCI device id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from .._core.errors import PassthroughError
from .model import NVIDIA

GIB = 1 << 30


@dataclass(frozen=True)
class Product:
    """``memory`` is the nominal size in bytes: firmware keeps a part of it, so the seen total is a little smaller."""

    key: str
    device: str
    name: str
    family: str
    memory: int


# Ids: the table of the kernel's own nvgrace-gpu driver (7.3), and pci.ids for the names.
PRODUCTS = (
    Product("gh200-120gb", "2342", "GH200 120GB (96 GiB HBM3)", "grace-hopper", 96 * GIB),
    Product("gh200-480gb", "2345", "GH200 480GB (96 GiB HBM3)", "grace-hopper", 96 * GIB),
    Product("gh200-144gb", "2348", "GH200 144GB (144 GiB HBM3e)", "grace-hopper", 144 * GIB),
    Product("gb200", "2941", "GB200 (186 GiB HBM3e)", "grace-blackwell", 186 * GIB),
    Product("gb300", "31c2", "GB300 (279 GiB HBM3e)", "grace-blackwell", 279 * GIB),
)


def product_of(vendor: str, device: str) -> Optional[Product]:
    """The product with these lower-case hexadecimal PCI ids, or None."""
    if vendor != NVIDIA:
        return None
    return next((product for product in PRODUCTS if product.device == device), None)


def product_named(key: str) -> Product:
    """The product with this key. Raises PassthroughError, naming the known ones, where there is none."""
    for product in PRODUCTS:
        if product.key == key:
            return product
    known = ", ".join(product.key for product in PRODUCTS)
    raise PassthroughError(f"{key!r} is no known product: use one of {known}, or give expected_memory instead.")


def family_of(product: Optional[Product], machine: str) -> str:
    """Family of a GPU; one that is not in the table is an x86 card on an x86 host and unknown elsewhere."""
    if product is not None:
        return product.family
    return "x86" if machine in ("x86_64", "amd64", "i686") else "unknown"
