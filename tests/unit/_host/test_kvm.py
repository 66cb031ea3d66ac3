# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking KVM for capability 243: the question goes to a VM, and both descriptors are closed."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._host.kvm import (
    KVM_CHECK_EXTENSION,
    KVM_CREATE_VM,
    read_kvm,
)


class FakeKvm:
    """Answers the two ioctls; the VM is a descriptor of /dev/null."""

    def __init__(self, capability: int) -> None:
        self.capability = capability
        self.vm = -1

    def ioctl(self, descriptor: int, request: int, argument: int) -> int:
        if request == KVM_CREATE_VM:
            self.vm = os.open(os.devnull, os.O_RDONLY)
            return self.vm
        if (descriptor, request, argument) == (self.vm, KVM_CHECK_EXTENSION, 243):
            return self.capability
        raise OSError(errno.EINVAL, "Invalid argument")


@pytest.mark.parametrize(("capability", "expected"), [(1, True), (0, False)])
def test_capability_is_asked_of_a_vm(tree, monkeypatch, capability, expected):
    fake = FakeKvm(capability)
    monkeypatch.setattr(fcntl, "ioctl", fake.ioctl)
    tree.write("/dev/kvm")
    kvm = read_kvm(tree.host)
    assert (kvm.present, kvm.cacheable_pfnmap, kvm.reason) == (True, expected, None)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fake.vm)


def test_no_kvm(tree):
    kvm = read_kvm(tree.host)
    assert (kvm.present, kvm.cacheable_pfnmap, kvm.reason) == (False, None, "/dev/kvm does not exist")


def test_kvm_that_refuses_is_unknown_with_its_reason(tree):
    tree.write("/dev/kvm")
    kvm = read_kvm(tree.host)
    assert (kvm.present, kvm.cacheable_pfnmap) == (True, None)
    assert kvm.reason == "/dev/kvm refused: Inappropriate ioctl for device"
