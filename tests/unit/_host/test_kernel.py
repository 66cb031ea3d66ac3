# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel, build options, headers and distribution."""

from __future__ import annotations

import gzip
import os
import struct

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.facts import Distribution
from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.kernel import (
    headers_package,
    parse_config,
    read_distribution,
    read_headers,
    read_kernel,
)

CONFIG = "CONFIG_NODES_SHIFT=6\nCONFIG_IOMMUFD=m\n# CONFIG_KVM is not set\nCONFIG_NODES_SHIFT_X=9\nCONFIG_VFIO=\"y\"\n"


def test_kernel_of_a_grace_host(grace):
    kernel = read_kernel(grace.host)
    assert (kernel.release, kernel.machine) == ("7.3.4+deb13-arm64", "aarch64")
    assert kernel.cmdline == "BOOT_IMAGE=/vmlinuz root=/dev/vda rw quiet"
    assert (kernel.option("NODES_SHIFT"), kernel.option("IOMMUFD"), kernel.option("KVM")) == (4, "n", "y")
    assert kernel.option("NOT_OURS") is None


@pytest.mark.parametrize(("option", "value"), [("NODES_SHIFT", 6), ("IOMMUFD", "m"), ("KVM", "n"), ("VFIO", "y"),
                                               ("VFIO_DEVICE_CDEV", "n")])
def test_parse_config(option, value):
    assert parse_config(CONFIG)[option] == value


def test_config_without_a_file_in_boot_comes_from_proc(tree):
    tree.write("/proc/sys/kernel/osrelease", "6.12\n")
    tree.write("/proc/config.gz", gzip.compress(CONFIG.encode()))
    assert read_kernel(tree.host).option("NODES_SHIFT") == 6


@pytest.mark.parametrize("packed", [None, b"not gzip"])
def test_unreadable_config_is_none(tree, packed):
    tree.write("/proc/sys/kernel/osrelease", "6.12\n")
    if packed is not None:
        tree.write("/proc/config.gz", packed)
    kernel = read_kernel(tree.host)
    assert kernel.config is None
    assert kernel.option("NODES_SHIFT") is None


def test_page_size_from_the_auxiliary_vector(tree):
    tree.write("/proc/self/auxv", struct.pack("@LLLLLL", 16, 1, 6, 65536, 0, 0))
    assert read_kernel(tree.host).page_size == 65536


def test_page_size_without_it_is_that_of_this_process(tree):
    assert read_kernel(tree.host).page_size == os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("text", "expected"), [
    ('ID=ubuntu\nVERSION_ID="24.04"\nID_LIKE=debian\n', Distribution("ubuntu", "24.04", ("debian",))),
    ('ID="rocky"\nVERSION_ID=9.5\nID_LIKE="rhel centos fedora"\n# ID=x\n',
     Distribution("rocky", "9.5", ("rhel", "centos", "fedora"))),
    ("ID='broken\n", Distribution("'broken", "", ())),
    ("", Distribution("linux", "", ())),
])
def test_distribution(tree, text, expected):
    tree.write("/etc/os-release", text)
    assert read_distribution(tree.host) == expected


@pytest.mark.parametrize(("distribution", "release", "package"), [
    (Distribution("debian", "13", ()), "6.12.107+deb13-arm64", "linux-headers-6.12.107+deb13-arm64"),
    (Distribution("mint", "22", ("ubuntu",)), "6.8.0-1-generic", "linux-headers-6.8.0-1-generic"),
    (Distribution("rocky", "9", ("rhel",)), "5.14.0-1.el9.aarch64", "kernel-devel-5.14.0-1.el9.aarch64"),
    (Distribution("opensuse-leap", "15", ("suse", "opensuse")), "6.4.0-1-default", "kernel-default-devel"),
    (Distribution("arch", "", ()), "6.18-arch1", None),
])
def test_headers_package(distribution, release, package):
    assert headers_package(release, distribution) == package


@pytest.mark.parametrize("present", [True, False])
def test_headers_count_only_with_a_makefile(tree, present):
    tree.write("/lib/modules/6.12/build/Makefile" if present else "/lib/modules/6.12/build/other")
    assert read_headers(tree.host, "6.12", Distribution("debian", "13", ())).present is present
