# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The choice of the VFIO driver: libvirt's rule as a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.variant import (
    PlannedModule,
    VariantChooser,
    best_alias,
    parse_aliases,
)
from ansible_collections.nvgrace.passthrough.tests.unit._gpu.fake_sysfs import (
    ALIASES,
    KERNEL,
    VARIANT,
    FakeHost,
)

HOPPER = "pci:v000010DEd00002342sv000010DEsd000016EBbc03sc02i00"
UNKNOWN = "pci:v000010DEd000031C3sv000010DEsd000016EBbc03sc02i00"
PLANNED = (PlannedModule(VARIANT, VARIANT, ("vfio_pci:v000010DEd000031C3sv*sd*bc*sc*i*",)),)


@pytest.mark.parametrize(("text", "modalias", "module"), [
    (ALIASES, HOPPER, VARIANT),
    (ALIASES, UNKNOWN, "vfio_pci"),
    ("", HOPPER, None),
    ("alias pci:v000010DEd*sv*sd*bc*sc*i* nouveau\n", HOPPER, None),
    ("alias vfio_pci:v*d*sv*sd*bc*sc*i* a\nalias vfio_pci:v*d*sv*sd*bc*sc*i* b\n", HOPPER, "a"),
    ("alias vfio_pci:v000010DEd00002342sv*sd*bc03sc*i* a\nalias vfio_pci:v000010DEd00002342sv*sd*bc*sc*i* b\n",
     HOPPER, "a"),
    ("# comment\nalias vfio_pci:v000010DEd00002342sv*sd*bc*sc*i*\n", HOPPER, None),
])
def test_fewest_wildcards_win(text: str, modalias: str, module: str | None) -> None:
    alias = best_alias(modalias, parse_aliases(text, "modules.alias"))
    assert (alias.module if alias else None) == module


def test_built_in_aliases_count_too(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.write(f"/lib/modules/{KERNEL}/modules.alias", "")
    host.write(f"/lib/modules/{KERNEL}/modules.builtin.alias", ALIASES)
    variant = VariantChooser(host).choose(HOPPER)
    assert (variant.module, variant.source) == (VARIANT, "modules.builtin.alias")


def test_falls_back_to_vfio_pci(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.write(f"/lib/modules/{KERNEL}/modules.alias", "")
    variant = VariantChooser(host).choose(HOPPER)
    assert (variant.module, variant.driver, variant.source) == ("vfio_pci", "vfio-pci", "fallback")


def test_a_planned_module_is_known_before_it_is_installed(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    assert VariantChooser(host).choose(UNKNOWN).module == "vfio_pci"
    variant = VariantChooser(host, PLANNED).choose(UNKNOWN)
    assert (variant.module, variant.driver, variant.source) == (VARIANT, VARIANT, "planned")


def test_an_installed_module_beats_the_prediction(tmp_path: Path) -> None:
    planned = (PlannedModule(VARIANT, VARIANT, ("v000010DEd00002342sv*sd*bc*sc*i*",)),)
    assert VariantChooser(FakeHost(tmp_path), planned).choose(HOPPER).source == "modules.alias"


def test_driver_name_comes_from_sysfs_once_the_module_is_loaded(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    chooser = VariantChooser(host)
    assert chooser.driver_name("odd_module") is None
    host.load("odd_module")
    assert chooser.driver_name("odd-module") == "Odd-Driver"


@pytest.mark.parametrize(("name", "module", "driver"), [
    ("vfio-pci", "vfio_pci", "vfio-pci"),
    ("vfio_pci", "vfio_pci", "vfio-pci"),
    ("nvgrace-gpu-vfio-pci", VARIANT, VARIANT),
    ("Odd-Driver", "odd_module", "Odd-Driver"),
])
def test_the_operator_may_use_either_spelling(tmp_path: Path, name: str, module: str, driver: str) -> None:
    host = FakeHost(tmp_path)
    host.load("odd_module")
    variant = VariantChooser(host).named(name)
    assert (variant.module, variant.driver) == (module, driver)
