# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The choice of the VFIO driver: libvirt's rule as a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.variant import (
    Alias,
    PlannedModule,
    VariantChooser,
    best_alias,
    parse_aliases,
    parse_builtin,
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
    # libvirt compares whole fields: a part of one with a wildcard is not equal to anything
    ("alias vfio_pci:v000010DEd0000234*sv*sd*bc*sc*i* a\n", HOPPER, None),
    ("alias vfio_pci:v000010DEd00002342sv*sd*bc03sc02i00* a\nalias vfio_pci:v*d*sv*sd*bc*sc*i* b\n", HOPPER, "b"),
    ("alias vfio_pci:v000010DEd*sv*sd*bc03sc*i* a\nalias vfio_pci:v000010DEd00002342sv*sd*bc*sc*i* b\n", HOPPER, "a"),
    ("alias vfio_pci:something a\nalias vfio_pci:v*d*sv*sd*bc*sc*i* b\n", HOPPER, "b"),
    (ALIASES, "usb:v1d6bp0002", None),
])
def test_fewest_wildcards_win(text: str, modalias: str, module: str | None) -> None:
    alias = best_alias(modalias, parse_aliases(text, "modules.alias"))
    assert (alias.module if alias else None) == module


BUILT_IN = (b"vfio.alias=devname:vfio/vfio\0vfio_pci.alias=vfio_pci:v*d*sv*sd*bc*sc*i*\0vfio_pci.license=GPL v2\0"
            b"nvgrace_gpu_vfio_pci.alias=vfio_pci:v000010DEd00002342sv*sd*bc*sc*i*\0")


def test_drivers_that_are_built_in_count_too(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.write(f"/lib/modules/{KERNEL}/modules.alias", "")
    host.write(f"/lib/modules/{KERNEL}/modules.builtin.modinfo", BUILT_IN)
    variant = VariantChooser(host).choose(HOPPER)
    assert (variant.module, variant.source) == (VARIANT, "modules.builtin.modinfo")
    assert VariantChooser(host).choose(UNKNOWN).module == "vfio_pci"


def test_a_module_beats_what_is_built_in(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.write(f"/lib/modules/{KERNEL}/modules.builtin.modinfo", BUILT_IN)
    assert VariantChooser(host).choose(HOPPER).source == "modules.alias"


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


def test_a_planned_module_tells_its_own_driver_only(tmp_path: Path) -> None:
    planned = (PlannedModule("site-vfio-pci", "Site-VFIO", ()), PlannedModule("other", "Other", ()))
    chooser = VariantChooser(FakeHost(tmp_path), planned)
    assert [chooser.driver_name(name) for name in ("site_vfio_pci", "site-vfio-pci", "other", "odd_module")] == [
        "Site-VFIO", "Site-VFIO", "Other", None]


def test_what_is_built_in_and_no_vfio_alias_is_none() -> None:
    assert parse_builtin(b"a.alias=pci:v*\0b.description=vfio_pci:v*\0c.alias=vfio_pci:v*\0") == [
        Alias("v*", "c", "modules.builtin.modinfo")]


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
