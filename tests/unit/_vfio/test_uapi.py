# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parser of the kernel's structures against good, broken and lying answers."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.nvgrace.passthrough.plugins.module_utils._vfio import uapi


def answer(flags: int = 15, cap_offset: int = 32, tail: bytes = b"", argsz: int | None = None, size: int = 1 << 14,
           index: int = 4, offset: int = 4 << 40) -> bytearray:
    length = 32 + len(tail) if argsz is None else argsz
    return bytearray(struct.pack("=IIIIQQ", length, flags, index, cap_offset, size, offset) + tail)


def sparse(*areas: tuple[int, int], following: int = 0, count: int | None = None, version: int = 1) -> bytes:
    head = struct.pack("=HHIII", 1, version, following, len(areas) if count is None else count, 0)
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
    (answer(tail=sparse((0, 4096))), ((0, 4096),)),
    (answer(tail=sparse((0, 4096), (8192, 4096))), ((0, 4096), (8192, 4096))),
    (answer(tail=sparse()), ()),
    (answer(tail=sparse((8192, 4096), (0, 4096))), ((8192, 4096), (0, 4096))),
    (answer(tail=sparse((0, 1 << 14))), ((0, 1 << 14),)),
    (answer(tail=other(3, 40) + sparse((0, 1))), ((0, 1),)),
    # capabilities that are not known, and ones behind the areas
    (answer(tail=other(0xFFFF, 40) + other(0, 48) + sparse((0, 1))), ((0, 1),)),
    (answer(tail=sparse((0, 1), following=64) + other(2)), ((0, 1),)),
    (answer(7, 32, sparse((0, 1))), None),
])
def test_good_answers(buffer: bytearray, areas: tuple[tuple[int, int], ...] | None) -> None:
    region = uapi.parse_region_info(buffer, 4)
    assert (region.index, region.size, region.offset) == (4, 1 << 14, 4 << 40)
    assert (None if region.sparse is None else tuple((area.offset, area.size) for area in region.sparse)) == areas


@pytest.mark.parametrize(("buffer", "text"), [
    (answer(tail=other(3, 32)), "points back, to 32"),
    (answer(tail=other(3, 40) + other(3, 32)), "points back, to 32"),
    (answer(tail=other(3, 48) + other(3) + other(3, 40)), "points back, to 40"),
    (answer(tail=other(3, 36) + other(3)), "points back, to 36"),
    (answer(cap_offset=8), "points back, to 8"),
    (answer(cap_offset=4000), "points outside the answer, to 4000"),
    (answer(tail=other(3, 0xFFFFFFF8)), "points outside the answer, to 4294967288"),
    (answer(cap_offset=36, tail=other(3) + other(3)), "points to 36, which is not aligned"),
    (answer(tail=other(3, 43) + bytes(64)), "points to 43, which is not aligned"),
    (answer(tail=b"\1\0\1\0"), "points outside"),
    # the buffer is large, the answer that the kernel owns up to is not
    (answer(tail=sparse((0, 1)), argsz=36), "points outside the answer, to 32"),
    (answer(tail=sparse((0, 1)), argsz=48), "claims 1 areas, more than fit"),
    (answer(15, 0, bytes(32)), "said to have capabilities, and the answer has none"),
    (answer(tail=other(1)), "is cut off"),
    # the next capability is no part of it
    (answer(tail=other(1, 40) + other(2)), "is cut off"),
    (answer(tail=sparse((0, 1), count=2)), "claims 2 areas"),
    (answer(tail=sparse((0, 1), count=0xFFFFFFFF)), "claims 4294967295 areas"),
    # the second area would be the next capability
    (answer(tail=sparse((0, 1), count=2, following=64) + other(2) + bytes(8)), "claims 2 areas"),
    (answer(tail=sparse((0, 1), following=64) + sparse((0, 1))), "two sparse-mmap capabilities"),
    (answer(tail=sparse((0, 1), version=2)), "unknown version 2"),
    (answer(tail=sparse((0, 0))), "an area without a byte at 0x0"),
    (answer(tail=sparse((0, 4096), (4095, 1))), "areas that overlap at 0xfff"),
    (answer(tail=sparse((4096, 4096), (0, 4097))), "areas that overlap at 0x1000"),
    (answer(tail=sparse((0, (1 << 14) + 1))), "ends at 0x4001, and the region has 16384 bytes"),
    (answer(tail=sparse((1 << 14, 1))), "ends at 0x4001"),
    (answer(tail=sparse(((1 << 64) - 1, 1))), "ends at 0x10000000000000000"),
    (answer(7, 0, index=5), "asked about region 4, the kernel answers about region 5"),
    (answer(7, 0, argsz=31), "says that its answer about region 4 has 31 bytes"),
    (answer(7, 0)[:31], "has 31 bytes only"),
    (answer(7, 0, size=(1 << 63) - 1, offset=1), "at 0x1, where no file has any"),
    (answer(7, 0, size=0, offset=1 << 63), "where no file has any"),
])
def test_lies(buffer: bytearray, text: str) -> None:
    with pytest.raises(uapi.UapiError) as caught:
        uapi.parse_region_info(buffer, 4)
    assert text in caught.value.message


def test_the_last_byte_that_a_file_can_have() -> None:
    assert uapi.parse_region_info(answer(7, 0, size=(1 << 63) - 2, offset=1), 4).size == (1 << 63) - 2


WORD = st.one_of(st.integers(0, 96), st.sampled_from([0xFFFFFFFF, 1 << 31, 4096]), st.integers(0, 0xFFFFFFFF))
LONG = st.one_of(st.integers(0, 1 << 14), st.integers(0, (1 << 64) - 1))
CHAIN = st.lists(st.one_of(
    st.builds(lambda *fields: struct.pack("=HHI", *fields), st.integers(0, 5), st.integers(0, 2), WORD),
    st.builds(lambda *fields: struct.pack("=HHIII", *fields), st.just(1), st.just(1), WORD, WORD, WORD),
    st.builds(lambda *fields: struct.pack("=QQ", *fields), LONG, LONG),
    st.binary(max_size=9)), max_size=12).map(b"".join)


@settings(max_examples=300, deadline=1000)
@given(argsz=WORD, flags=st.integers(0, 31), index=st.integers(3, 5), cap=WORD, size=LONG, offset=LONG, chain=CHAIN,
       cut=st.integers(0, 40))
def test_no_answer_raises_anything_else_or_loops(argsz: int, flags: int, index: int, cap: int, size: int, offset: int,
                                                 chain: bytes, cut: int) -> None:
    buffer = bytearray(struct.pack("=IIIIQQ", argsz, flags, index, cap, size, offset) + chain)
    if cut < 32:
        del buffer[len(buffer) - cut:]
    try:
        region = uapi.parse_region_info(buffer, 4)
    except PassthroughError:
        return
    assert region.index == 4 and region.offset + region.size < 1 << 63
    areas = sorted(region.sparse or (), key=lambda area: area.offset)
    assert all(area.size and area.offset + area.size <= region.size for area in areas)
    assert all(low.offset + low.size <= high.offset for low, high in zip(areas, areas[1:]))


@pytest.mark.parametrize(("buffer", "needed"), [
    (answer(7, 0, argsz=64), 0), (answer(15, 0, argsz=64), 64), (answer(tail=bytes(32)), 0),
    (answer(15, 0, argsz=33), 33), (answer(15, 0, argsz=uapi.MAX_ARGSZ), uapi.MAX_ARGSZ)])
def test_second_call(buffer: bytearray, needed: int) -> None:
    assert uapi.region_info_needs(buffer) == needed


@pytest.mark.parametrize("argsz", [uapi.MAX_ARGSZ + 1, 0xFFFFFFFF])
def test_an_absurd_size_is_refused(argsz: int) -> None:
    with pytest.raises(uapi.UapiError, match=f"asks for {argsz} bytes"):
        uapi.region_info_needs(answer(argsz=argsz))


@pytest.mark.parametrize(("request_bytes", "words"), [
    (uapi.device_info_request(), [24, 0, 0, 0, 0, 0]),
    (uapi.region_info_request(4), [32, 0, 4, 0, 0, 0, 0, 0]),
    (uapi.region_info_request(4, 64), [64, 0, 4, 0, 0, 0, 0, 0, *[0] * 8]),
    (uapi.group_status_request(), [8, 0]),
    (uapi.file_descriptor(7), [7]),
    (uapi.bind_iommufd_request(5), [16, 0, 5, 0]),
    (uapi.ioas_alloc_request(), [12, 0, 0]),
    (uapi.attach_request(7), [12, 0, 7]),
])
def test_requests_are_what_old_kernels_accept(request_bytes: bytearray, words: list[int]) -> None:
    """Sizes and flags included: a kernel refuses a flag or a size that it does not know."""
    assert list(struct.unpack(f"={len(words)}I", request_bytes)) == words


def test_device_name() -> None:
    assert uapi.device_name("0009:01:00.0") == b"0009:01:00.0\0"


@pytest.mark.parametrize(("flags", "viable"), [(0, False), (1, True), (2, False), (3, True)])
def test_viable(flags: int, viable: bool) -> None:
    assert uapi.group_is_viable(bytearray(struct.pack("=II", 8, flags))) is viable


def test_answers() -> None:
    assert uapi.parse_ioas_alloc(bytearray(struct.pack("=III", 12, 5, 77))) == 77
    assert uapi.parse_device_info(bytearray(struct.pack("=IIIIII", 24, 2, 9, 5, 0, 0))) == uapi.DeviceInfo(2, 9, 5)


def test_numbers_of_the_kernel() -> None:
    """include/uapi/linux/vfio.h"""
    assert (uapi.API_VERSION, uapi.TYPE1V2_IOMMU, uapi.GROUP_FLAGS_VIABLE, uapi.DEVICE_FLAGS_PCI) == (0, 3, 1, 2)
    assert (uapi.ROM_REGION, uapi.CONFIG_REGION, uapi.VGA_REGION, uapi.MAX_ARGSZ) == (6, 7, 8, 65536)
    assert (uapi.REGION_READ, uapi.REGION_WRITE, uapi.REGION_MMAP, uapi.REGION_CAPS) == (1, 2, 4, 8)
    assert list(uapi.BAR_REGIONS) == [0, 1, 2, 3, 4, 5]
    assert [uapi.REGION_NAMES[index] for index in (0, 5, 6, 7, 8)] == ["BAR0", "BAR5", "ROM", "CONFIG", "VGA"]


def test_flag_names() -> None:
    assert uapi.RegionInfo(4, 15, 0, 0).flag_names() == ["read", "write", "mmap", "caps"]
    assert uapi.RegionInfo(7, 3, 0, 0).flag_names() == ["read", "write"]
