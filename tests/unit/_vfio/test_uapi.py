# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parser of the kernel's structures against good, broken and lying answers."""

from __future__ import annotations

import struct

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio import uapi


def answer(flags: int = 15, cap_offset: int = 32, tail: bytes = b"", argsz: int = 64, size: int = 4096) -> bytearray:
    return bytearray(struct.pack("=IIIIQQ", argsz, flags, 4, cap_offset, size, 4 << 40) + tail)


def sparse(*areas: tuple[int, int], following: int = 0, count: int | None = None) -> bytes:
    head = struct.pack("=HHIII", 1, 1, following, len(areas) if count is None else count, 0)
    return head + b"".join(struct.pack("=QQ", *area) for area in areas)


def other(identifier: int, following: int = 0) -> bytes:
    return struct.pack("=HHI", identifier, 1, following)


@pytest.mark.parametrize(("name", "number"), [
    ("GET_API_VERSION", 0x3B64), ("CHECK_EXTENSION", 0x3B65), ("SET_IOMMU", 0x3B66), ("GROUP_GET_STATUS", 0x3B67),
    ("GROUP_SET_CONTAINER", 0x3B68), ("GROUP_GET_DEVICE_FD", 0x3B6A), ("DEVICE_GET_INFO", 0x3B6B),
    ("DEVICE_GET_REGION_INFO", 0x3B6C), ("DEVICE_BIND_IOMMUFD", 0x3B76), ("DEVICE_ATTACH_IOMMUFD_PT", 0x3B77),
    ("IOMMUFD_IOAS_ALLOC", 0x3B81),
])
def test_ioctl_numbers(name: str, number: int) -> None:
    assert getattr(uapi, name) == number


@pytest.mark.parametrize(("buffer", "areas"), [
    (answer(7, 0), None),
    (answer(15, 0), None),
    (answer(tail=sparse((0, 4096))), ((0, 4096),)),
    (answer(tail=sparse((0, 4096), (8192, 4096))), ((0, 4096), (8192, 4096))),
    (answer(tail=sparse()), ()),
    (answer(tail=other(3, 40) + sparse((0, 1))), ((0, 1),)),
    (answer(7, 32, sparse((0, 1))), None),
])
def test_good_answers(buffer: bytearray, areas: tuple[tuple[int, int], ...] | None) -> None:
    region = uapi.parse_region_info(buffer)
    assert (region.index, region.size, region.offset) == (4, 4096, 4 << 40)
    assert (None if region.sparse is None else tuple((area.offset, area.size) for area in region.sparse)) == areas


@pytest.mark.parametrize(("buffer", "text"), [
    (answer(tail=other(3, 32)), "loops at 32"),
    (answer(tail=other(3, 40) + other(3, 32)), "loops at 32"),
    (answer(cap_offset=8), "points outside the answer, to 8"),
    (answer(cap_offset=4000), "points outside the answer, to 4000"),
    (answer(tail=b"\1\0\1\0"), "points outside"),
    (answer(tail=other(1)), "is cut off"),
    (answer(tail=sparse((0, 1), count=2)), "claims 2 areas"),
    (answer(tail=sparse((0, 1), count=0xFFFFFFFF)), "claims 4294967295 areas"),
])
def test_lies(buffer: bytearray, text: str) -> None:
    with pytest.raises(uapi.UapiError, match=text):
        uapi.parse_region_info(buffer)


@pytest.mark.parametrize(("buffer", "needed"), [(answer(7, 0), 0), (answer(15, 0), 64), (answer(tail=bytes(32)), 0)])
def test_second_call(buffer: bytearray, needed: int) -> None:
    assert uapi.region_info_needs(buffer) == needed


def test_an_absurd_size_is_refused() -> None:
    with pytest.raises(uapi.UapiError, match="asks for 4294967295 bytes"):
        uapi.region_info_needs(answer(argsz=0xFFFFFFFF))


def test_requests_have_the_sizes_that_old_kernels_accept() -> None:
    assert [len(uapi.device_info_request()), len(uapi.region_info_request(4)), len(uapi.region_info_request(4, 64)),
            len(uapi.group_status_request()), len(uapi.bind_iommufd_request(5)), len(uapi.ioas_alloc_request()),
            len(uapi.attach_request(7))] == [24, 32, 64, 8, 16, 12, 12]
    assert uapi.device_name("0009:01:00.0") == b"0009:01:00.0\0"


def test_flag_names() -> None:
    assert uapi.RegionInfo(4, 15, 0, 0).flag_names() == ["read", "write", "mmap", "caps"]
    assert uapi.RegionInfo(7, 3, 0, 0).flag_names() == ["read", "write"]
