# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is accepted as a wish, and the sentence for what is not."""

from __future__ import annotations

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.settings import (
    HostSettings,
    HugepageWish,
    parse_settings,
    parse_size,
)


def test_nothing_is_wanted_by_default():
    assert parse_settings({}) == HostSettings()


def test_everything():
    assert parse_settings({
        "kernel_arguments": ["iommu.passthrough=0", "quiet", "isolcpus=managed_irq,domain,1-3", "quiet"],
        "modprobe_blacklist": ["nova-core", "nova_core"],
        "modprobe_options": ["options vfio_pci disable_idle_d3=1", "softdep nouveau pre: vfio-pci"],
        "modules_load": ["vfio-pci"],
        "hugepages": {"size": "512M", "count": 64},
        "memlock": "64G",
        "update_initramfs": "never",
        "hold_kernel": True,
    }) == HostSettings(
        kernel_arguments=("iommu.passthrough=0", "quiet", "isolcpus=managed_irq,domain,1-3"),
        modprobe_blacklist=("nova_core",),
        modprobe_options=("options vfio_pci disable_idle_d3=1", "softdep nouveau pre: vfio-pci"),
        modules_load=("vfio-pci",),
        hugepages=HugepageWish(512 << 20, 64),
        memlock=str(64 << 30),
        update_initramfs=False,
        hold_kernel=True,
    )


BAD_TEXT = ["", " ", "a b", 'a="b"', "a='b'", "a=$(id)", "a=`id`", "a;b", "a=b|c", "a=b>c", "a\nb", "a\0b", "a\\b",
            "a\n", "é", "a={b}", "a#b", pytest.param("x" * 500, id="500"), pytest.param("x" * (10 << 20), id="10M")]


@pytest.mark.parametrize("value", [*BAD_TEXT, "=b", "-a", "a="])
def test_bad_kernel_arguments(value):
    with pytest.raises(PassthroughError, match="kernel_arguments: .* is not a kernel argument") as caught:
        parse_settings({"kernel_arguments": ["quiet", value]})
    assert len(caught.value.message) < 500
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("value", [*BAD_TEXT, "../x", "a/b", "-a", pytest.param("x" * 65, id="65")])
@pytest.mark.parametrize("option", ["modprobe_blacklist", "modules_load"])
def test_bad_module_names(option, value):
    with pytest.raises(PassthroughError, match=f"{option}: .* is not the name of a kernel module"):
        parse_settings({option: [value]})


@pytest.mark.parametrize("value", [*BAD_TEXT, "options", "options vfio_pci", "install nouveau /bin/false",
                                   "remove x y", "blacklist a b", "options a  b=c", "options a b=\"c\"",
                                   "options a b=c\ninstall d e"])
def test_bad_option_lines(value):
    with pytest.raises(PassthroughError, match="modprobe_options: .* is not a line of the form"):
        parse_settings({"modprobe_options": [value]})


@pytest.mark.parametrize(("option", "value"), [
    ("kernel_arguments", "vfio_iommu_type1.allow_unsafe_interrupts=1"),
    ("kernel_arguments", "vfio_iommu_type1.allow-unsafe-interrupts=1"),
    ("kernel_arguments", "iommufd.allow_unsafe_interrupts=1"),
    ("kernel_arguments", "pcie_acs_override=downstream,multifunction"),
    ("kernel_arguments", "vfio.enable_unsafe_noiommu_mode=1"),
    ("modprobe_options", "options vfio_iommu_type1 allow_unsafe_interrupts=1"),
    ("modprobe_options", "options vfio enable_unsafe_noiommu_mode=Y"),
])
def test_isolation_is_never_switched_off(option, value):
    with pytest.raises(PassthroughError, match="would switch the isolation of VMs off"):
        parse_settings({option: [value]})


def test_too_many_entries():
    with pytest.raises(PassthroughError, match="modules_load has 101 entries; at most 100"):
        parse_settings({"modules_load": [f"m{number}" for number in range(101)]})


def test_command_line_has_an_end():
    with pytest.raises(PassthroughError, match="longer than 1536 characters together"):
        parse_settings({"kernel_arguments": [f"a{number}=" + "x" * 390 for number in range(4)]})


@pytest.mark.parametrize(("text", "size"), [
    ("2M", 2 << 20), ("512MiB", 512 << 20), ("1G", 1 << 30), ("1GB", 1 << 30), ("4096", 4096), ("64K", 65536),
    ("1T", 1 << 40),
])
def test_sizes(text, size):
    assert parse_size(text, "memlock") == size


@pytest.mark.parametrize("text", ["", "0", "-1", "2m", "1.5G", "G", "2 M", "2M\n", "9" * 19])
def test_bad_sizes(text):
    with pytest.raises(PassthroughError, match="memlock: .* is not a size"):
        parse_size(text, "memlock")


@pytest.mark.parametrize("count", [0, -1, (1 << 24) + 1])
def test_bad_hugepage_counts(count):
    with pytest.raises(PassthroughError, match="is not between 1 and 16777216"):
        parse_settings({"hugepages": {"size": "2M", "count": count}})


def test_unlimited_memlock():
    assert parse_settings({"memlock": "unlimited"}).memlock == "unlimited"


def test_the_limits_themselves_are_accepted():
    assert len(parse_settings({"modules_load": [f"m{number}" for number in range(100)]}).modules_load) == 100
    # with the space behind each, 1536 characters in four
    full = [f"a{number}={'x' * 380}" for number in range(4)]
    assert sum(len(argument) + 1 for argument in full) == 1536
    assert parse_settings({"kernel_arguments": full}).kernel_arguments == tuple(full)
    with pytest.raises(PassthroughError, match="longer than 1536"):
        parse_settings({"kernel_arguments": [*full[:3], full[3] + "x"]})
    assert parse_settings({"hugepages": {"size": "2M", "count": 1 << 24}}).hugepages == HugepageWish(2 << 20, 1 << 24)


@pytest.mark.parametrize(("option", "start"), [("kernel_arguments", "a="), ("modprobe_options", "options m a=")])
def test_a_line_has_400_characters_at_most(option, start):
    longest = start + "x" * (400 - len(start))
    assert getattr(parse_settings({option: [longest]}), option) == (longest,)
    with pytest.raises(PassthroughError, match=f"{option}: .* is not a"):
        parse_settings({option: [longest + "x"]})


@pytest.mark.parametrize(("length", "shown"), [(80, "x" * 80), (81, "x" * 80 + "..."), (400, "x" * 80 + "...")])
def test_a_value_is_shown_up_to_80_characters(length, shown):
    with pytest.raises(PassthroughError) as caught:
        parse_size("x" * length, "memlock")
    assert f"{shown!r} is not a size" in caught.value.message
