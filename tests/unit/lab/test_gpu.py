# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The GPU as QEMU sees it: the vfio-user server over a socket pair, and the control socket's requests."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from nvlab import vfiouser as proto
from nvlab.gpufunction import BAR0, BAR2, C2C_LINK, CONFIG, HBM_TRAINING, GpuFunction
from nvlab.gpuserver import control
from nvlab.products import FUNCTIONS, find_product
from nvlab.registers import PAGE, Registers

REPLY, ERROR = 1, 0x20


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Client:
    """The client's half of the protocol, written against the specification."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.message = 0

    def call(self, command: int, body: bytes = b"", flags: int = 0, fds: list[int] | None = None) -> bytes:
        self.message += 1
        data = struct.pack("<HHIII", self.message, command, 16 + len(body), flags, 0) + body
        socket.send_fds(self.connection, [data], fds or [])
        if flags & proto.FLAG_NO_REPLY:
            return b""
        header = self.connection.recv(16, socket.MSG_WAITALL)
        message, answered, size, reply_flags, error = struct.unpack("<HHIII", header)
        assert (message, answered) == (self.message, command)
        assert reply_flags & REPLY
        payload = self.connection.recv(size - 16, socket.MSG_WAITALL) if size > 16 else b""
        if reply_flags & ERROR:
            raise OSError(error, os.strerror(error))
        return payload

    def read(self, region: int, offset: int, count: int) -> bytes:
        head = struct.pack("<QII", offset, region, count)
        reply = self.call(proto.CMD_REGION_READ, head)
        assert reply[:16] == head
        return reply[16:]

    def write(self, region: int, offset: int, data: bytes) -> None:
        head = struct.pack("<QII", offset, region, len(data))
        assert self.call(proto.CMD_REGION_WRITE, head + data) == head

    def word(self, region: int, offset: int) -> int:
        return struct.unpack("<I", self.read(region, offset, 4))[0]

    def put(self, region: int, offset: int, value: int) -> None:
        self.write(region, offset, struct.pack("<I", value))


class Rig:
    """A GPU, its clock, its log and a client."""

    def __init__(self, product: str, index: int = 0) -> None:
        self.clock = Clock()
        self.log: list[str] = []
        self.gpu = GpuFunction(find_product(product), index, self.log.append, self.clock)
        ours, theirs = socket.socketpair()
        ours.settimeout(5)
        self.client = Client(ours)
        self._server = theirs
        self._thread = threading.Thread(target=proto.Session(theirs, self.gpu, self.log.append).serve)
        self._thread.start()

    def close(self) -> None:
        self.client.connection.close()
        self._thread.join(5)
        assert not self._thread.is_alive()
        self._server.close()


@pytest.fixture
def gh() -> Iterator[Rig]:
    rig = Rig("gh200-120gb")
    yield rig
    rig.close()


@pytest.fixture
def gb() -> Iterator[Rig]:
    rig = Rig("gb200", index=1)
    yield rig
    rig.close()


def test_version(gh: Rig) -> None:
    reply = gh.client.call(proto.CMD_VERSION, struct.pack("<HH", 0, 0) + b'{"capabilities":{}}\0')
    assert struct.unpack_from("<HH", reply) == (0, 0)
    assert json.loads(reply[4:].rstrip(b"\0"))["capabilities"]["max_data_xfer_size"] == 1 << 20
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        gh.client.call(proto.CMD_VERSION, struct.pack("<HH", 1, 0) + b"{}\0")


def test_device_info(gh: Rig) -> None:
    assert struct.unpack("<IIII", gh.client.call(proto.CMD_DEVICE_INFO, bytes(16))) == (16, 3, 9, 5)


@pytest.mark.parametrize(("region", "gh_size", "gb_size"), [
    (0, 16 << 20, 16 << 20), (1, 0, 0), (2, 0, 32 << 20), (3, 0, 0), (4, 0, 0), (6, 0, 0), (7, 4096, 4096), (8, 0, 0),
])
def test_region_info(gh: Rig, gb: Rig, region: int, gh_size: int, gb_size: int) -> None:
    for rig, size in ((gh, gh_size), (gb, gb_size)):
        reply = rig.client.call(proto.CMD_REGION_INFO, struct.pack("<IIIIQQ", 32, 0, region, 0, 0, 0))
        assert struct.unpack("<IIIIQQ", reply) == (32, 3 if size else 0, region, 0, size, 0)


@pytest.mark.parametrize(("index", "flags", "count"), [(0, 7, 1), (1, 9, 1), (2, 0, 0), (3, 9, 1), (4, 9, 1)])
def test_irq_info(gh: Rig, index: int, flags: int, count: int) -> None:
    reply = gh.client.call(proto.CMD_IRQ_INFO, struct.pack("<IIII", 16, 0, index, 0))
    assert struct.unpack("<IIII", reply) == (16, flags, index, count)


def test_event_descriptors_are_kept_and_closed(gh: Rig) -> None:
    reading, writing = os.pipe()
    request = struct.pack("<IIIII", 20, 0x24, 1, 0, 1)
    gh.client.call(proto.CMD_SET_IRQS, request, fds=[writing])
    os.close(writing)
    os.set_blocking(reading, False)
    with pytest.raises(BlockingIOError):
        os.read(reading, 1)
    gh.close()
    assert os.read(reading, 1) == b"", "the server holds the descriptor no longer than the session"
    os.close(reading)


def test_dma_map_keeps_no_descriptor(gh: Rig) -> None:
    reading, writing = os.pipe()
    gh.client.call(proto.CMD_DMA_MAP, struct.pack("<IIQQQ", 32, 3, 0, 0x40000000, 4096), fds=[writing])
    os.close(writing)
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_unknown_command_and_no_reply(gh: Rig) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENOTTY)):
        gh.client.call(99)
    gh.client.call(proto.CMD_REGION_WRITE, struct.pack("<QII", 0x100, 0, 4) + b"abcd", flags=proto.FLAG_NO_REPLY)
    assert gh.client.read(BAR0, 0x100, 4) == b"abcd"


@pytest.mark.parametrize(("region", "offset", "count"), [(0, (16 << 20) - 2, 4), (7, 4094, 4), (2, 0, 4), (5, 0, 1),
                                                         (0, 0, 2 << 20)])
def test_accesses_outside_are_refused(gh: Rig, region: int, offset: int, count: int) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        gh.client.read(region, offset, count)


def test_write_with_wrong_count_is_refused(gh: Rig) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        gh.client.call(proto.CMD_REGION_WRITE, struct.pack("<QII", 0, 0, 8) + b"abcd")


def test_identity(gh: Rig, gb: Rig) -> None:
    assert gh.client.word(CONFIG, 0) == 0x234210DE
    assert gb.client.word(CONFIG, 0) == 0x294110DE
    assert gh.client.word(CONFIG, 8) >> 8 == 0x030200
    serials = {rig.client.read(CONFIG, 0x104, 8) for rig in (gh, gb)}
    assert len(serials) == 2


@pytest.mark.parametrize("bar", [0x10, 0x14, 0x18, 0x1C, 0x20, 0x24, 0x30])
def test_bar_sizing(gh: Rig, gb: Rig, bar: int) -> None:
    masks = {0x10: (0xFF00000C, 0xFF00000C), 0x14: (0xFFFFFFFF, 0xFFFFFFFF), 0x18: (0, 0xFE00000C),
             0x1C: (0, 0xFFFFFFFF)}
    for rig, mask in zip((gh, gb), masks.get(bar, (0, 0)), strict=True):
        rig.client.put(CONFIG, bar, 0xFFFFFFFF)
        assert rig.client.word(CONFIG, bar) == mask


def test_read_only_bits_stay(gh: Rig) -> None:
    for offset in (0x00, 0x08, 0x2C, 0x34, 0x100):
        before = gh.client.word(CONFIG, offset)
        gh.client.put(CONFIG, offset, ~before & 0xFFFFFFFF)
        assert gh.client.word(CONFIG, offset) == before
    gh.client.write(CONFIG, 4, b"\xff\xff")
    assert gh.client.read(CONFIG, 4, 2) == b"\x47\x05"


def capabilities(rig: Rig) -> dict[int, int]:
    found, at = {}, rig.client.read(CONFIG, 0x34, 1)[0]
    while at:
        identifier, following = rig.client.read(CONFIG, at, 2)
        found[identifier], at = at, following
    return found


def extended(rig: Rig) -> dict[int, int]:
    found, at = {}, 0x100
    while at:
        head = rig.client.word(CONFIG, at)
        found[head & 0xFFFF], at = at, head >> 20
    return found


def test_capabilities(gh: Rig) -> None:
    found = capabilities(gh)
    assert set(found) == {0x01, 0x05, 0x10}
    assert gh.client.word(CONFIG, found[0x10] + 4) >> 28 & 1, "FLR"


def test_dvsec_says_that_the_mig_bug_is_fixed(gh: Rig, gb: Rig) -> None:
    assert set(extended(gh)) == {0x03}
    at = extended(gb)[0x23]
    vendor, identifier, flags = struct.unpack("<H2xHH", gb.client.read(CONFIG, at + 4, 8))
    assert (vendor, identifier, flags & 1) == (0x10DE, 3, 1)


@pytest.mark.parametrize(("offset", "data"), [(0x68, b"\x10\xa8"), (0x69, b"\xa8"), (0x68, b"\x10\xa8\0\0")])
def test_flr_by_any_width(gh: Rig, offset: int, data: bytes) -> None:
    gh.client.put(CONFIG, 0x10, 0x80000000)
    gh.client.put(BAR0, 0x40, 0x12345678)
    gh.client.write(CONFIG, offset, data)
    assert gh.client.word(CONFIG, 0x10) == 0xC
    assert gh.client.word(BAR0, 0x40) == 0
    assert gh.gpu.resets == 1
    assert gh.client.read(CONFIG, 0x69, 1)[0] & 0x80 == 0, "the bit reads as zero"


def test_device_control_without_flr_resets_nothing(gh: Rig) -> None:
    gh.client.write(CONFIG, 0x68, b"\x1f\x28")
    assert gh.client.read(CONFIG, 0x68, 2) == b"\x1f\x28"
    assert gh.gpu.resets == 0


def test_reset_command(gh: Rig) -> None:
    gh.client.put(CONFIG, 0x10, 0x80000000)
    gh.client.call(proto.CMD_RESET)
    assert gh.client.word(CONFIG, 0x10) == 0xC
    assert "reset by VFIO_USER_DEVICE_RESET" in gh.log


def readiness(rig: Rig) -> tuple[int, int]:
    return rig.client.word(BAR0, C2C_LINK), rig.client.word(BAR0, HBM_TRAINING)


def test_ready_from_the_start(gh: Rig) -> None:
    assert readiness(gh) == (0xFF, 0xFF)
    assert gh.client.read(BAR0, C2C_LINK - 4, 8) == b"\0\0\0\0\xff\0\0\0", "any width shows it"
    gh.client.put(BAR0, C2C_LINK, 0)
    assert readiness(gh) == (0xFF, 0xFF), "a write does not change it"


def test_ready_after_each_reset(gh: Rig) -> None:
    assert control(gh.gpu, "ready-after 5") == {"ready": False, "resets": 0, "ready_in": 5.0, "gone": False}
    assert readiness(gh) == (0, 0)
    gh.clock.now += 5
    assert readiness(gh) == (0xFF, 0xFF)
    gh.client.call(proto.CMD_RESET)
    gh.clock.now += 4.9
    assert readiness(gh) == (0, 0)
    gh.clock.now += 0.2
    assert readiness(gh) == (0xFF, 0xFF)


def test_not_ready_until_told(gh: Rig) -> None:
    assert control(gh.gpu, "not-ready") == {"ready": False, "resets": 0, "ready_in": None, "gone": False}
    gh.clock.now += 1e6
    gh.client.call(proto.CMD_RESET)
    assert readiness(gh) == (0, 0)
    assert control(gh.gpu, "ready")["ready"] is True
    assert readiness(gh) == (0xFF, 0xFF)


@pytest.mark.parametrize("request_", ["", "vanish", "ready-after", "ready-after soon", "ready-after -1"])
def test_unknown_requests_change_nothing(gh: Rig, request_: str) -> None:
    assert "error" in control(gh.gpu, request_)
    assert control(gh.gpu, "state") == {"ready": True, "resets": 0, "ready_in": 0.0, "gone": False}


CXL_STATUS = 0x1C


@pytest.fixture
def cxl() -> Iterator[Rig]:
    rig = Rig("vera-cxl")
    yield rig
    rig.close()


def dvsecs(rig: Rig) -> dict[tuple[int, int], int]:
    """Return (vendor, DVSEC id) -> offset, walking the extended capabilities as a kernel does."""
    found, at = {}, 0x100
    while at:
        head = rig.client.word(CONFIG, at)
        if head & 0xFFFF == 0x23:
            found[struct.unpack("<H2xH", rig.client.read(CONFIG, at + 4, 6))] = at
        at = head >> 20
    return found


def cxl_status(rig: Rig) -> int:
    return rig.client.word(CONFIG, dvsecs(rig)[0x1E98, 0] + CXL_STATUS)


def test_cxl_dvsec(gh: Rig, gb: Rig, cxl: Rig) -> None:
    assert [set(dvsecs(rig)) for rig in (gh, gb, cxl)] == [set(), {(0x10DE, 3)}, {(0x10DE, 3), (0x1E98, 0)}]
    at = dvsecs(cxl)[0x1E98, 0]
    assert cxl.client.word(CONFIG, at + 4) >> 20 > CXL_STATUS, "the DVSEC is long enough for the register"
    assert cxl.client.word(CONFIG, at + 8) >> 16 & 0x4, "memory capable"


def test_cxl_is_ready_from_the_start_without_c2c_registers(cxl: Rig) -> None:
    assert cxl_status(cxl) == 0b11
    assert readiness(cxl) == (0, 0)
    cxl.client.put(CONFIG, dvsecs(cxl)[0x1E98, 0] + CXL_STATUS, 0)
    assert cxl_status(cxl) == 0b11, "read-only"


def test_cxl_memory_becomes_active_after_each_reset(cxl: Rig) -> None:
    control(cxl.gpu, "ready-after 5")
    control(cxl.gpu, "timeout-code 2")
    for _ in range(2):
        assert cxl_status(cxl) == 2 << 13 | 0b01
        cxl.clock.now += 5
        assert cxl_status(cxl) == 2 << 13 | 0b11
        cxl.client.call(proto.CMD_RESET)


def test_cxl_says_nothing_before_the_information_is_valid(cxl: Rig) -> None:
    control(cxl.gpu, "timeout-code 7")
    state = control(cxl.gpu, "info-valid-after 3")
    assert state["cxl"] == {"info_valid": False, "info_valid_in": 3.0, "timeout_code": 7, "answers": True}
    assert cxl_status(cxl) == 0
    cxl.clock.now += 3
    assert cxl_status(cxl) == 7 << 13 | 0b11
    cxl.client.call(proto.CMD_RESET)
    assert cxl_status(cxl) == 0
    assert control(cxl.gpu, "info-invalid")["cxl"]["info_valid_in"] is None
    cxl.clock.now += 1e6
    assert cxl_status(cxl) == 0
    control(cxl.gpu, "info-valid")
    assert cxl_status(cxl) == 7 << 13 | 0b11


def test_cxl_all_ones(cxl: Rig) -> None:
    assert control(cxl.gpu, "silent")["cxl"]["answers"] is False
    assert cxl_status(cxl) == 0xFFFFFFFF
    cxl.client.call(proto.CMD_RESET)
    assert cxl_status(cxl) == 0xFFFFFFFF
    control(cxl.gpu, "answering")
    assert cxl_status(cxl) == 0b11


@pytest.mark.parametrize("request_", ["info-invalid", "info-valid-after 2", "timeout-code 1", "silent", "answering"])
def test_cxl_requests_need_the_dvsec(gb: Rig, request_: str) -> None:
    assert control(gb.gpu, request_) == {"error": "gb200 has no CXL DVSEC"}


@pytest.mark.parametrize("request_", ["timeout-code 8", "timeout-code x", "timeout-code", "info-valid-after never"])
def test_bad_cxl_requests_change_nothing(cxl: Rig, request_: str) -> None:
    before = control(cxl.gpu, "state")
    assert "error" in control(cxl.gpu, request_)
    assert control(cxl.gpu, "state") == before


def test_physical_bar2_of_blackwell(gb: Rig) -> None:
    gb.client.put(BAR2, (32 << 20) - 4, 0xCAFEF00D)
    assert gb.client.word(BAR2, (32 << 20) - 4) == 0xCAFEF00D


def test_a_bar_costs_what_is_written_to_it() -> None:
    far = Registers(128 << 30)
    assert far.read((128 << 30) - 4, 4) == bytes(4)
    far.write(PAGE - 2, b"over")
    assert far.read(PAGE - 3, 6) == b"\0over\0"
    for offset, count in ((-1, 1), ((128 << 30) - 3, 4), (0, -1)):
        with pytest.raises(ValueError, match="leaves the"):
            far.read(offset, count)
    with pytest.raises(ValueError, match="leaves the"):
        far.write((128 << 30) - 3, b"four")


@pytest.mark.parametrize(("product", "class_code", "bars"), [
    # BAR number -> size in bytes and whether it is 64 bits wide, as software finds it out: by writing all ones
    ("h100-pcie", 0x030200, {0: (16 << 20, True), 2: (512 << 20, True), 4: (32 << 20, True)}),
    ("rtx-audio", 0x030000, {0: (16 << 20, False), 1: (256 << 20, True), 3: (32 << 20, True)}),
    ("audio", 0x040300, {0: (16 << 10, False)}),
])
def test_cards_of_x86_hosts(product: str, class_code: int, bars: dict[int, tuple[int, bool]]) -> None:
    card = GpuFunction(FUNCTIONS[product], 0, lambda line: None)
    assert struct.unpack("<I", card.read(CONFIG, 8, 4))[0] >> 8 == class_code
    for index in range(6):
        card.write(CONFIG, 0x10 + 4 * index, b"\xff" * 4)
    words = struct.unpack("<6I", card.read(CONFIG, 0x10, 24))
    found = {}
    for index in bars:
        wide = words[index] & 0x6 == 0x4
        mask = words[index] & ~0xF | (words[index + 1] if wide else 0xFFFFFFFF) << 32
        found[index] = ((~mask & 0xFFFFFFFFFFFFFFFF) + 1, wide)
        assert card.sizes[index] == found[index][0]
    assert found == bars
    # There is no C2C link to say anything in its registers.
    if product != "audio":
        assert card.read(0, C2C_LINK, 4) == card.read(0, HBM_TRAINING, 4) == bytes(4)


@pytest.mark.parametrize("product", ["gh200-120gb", "gb200"])
def test_a_bar0_that_ends_before_the_readiness_registers(product: str) -> None:
    small = GpuFunction(FUNCTIONS[product].with_small_bar0(), 0, lambda line: None)
    assert small.sizes == {**GpuFunction(FUNCTIONS[product], 0, lambda line: None).sizes, BAR0: 64 << 10}
    assert small.read(BAR0, C2C_LINK, 4) == bytes(4)
    with pytest.raises(ValueError, match="leaves the 65536 bytes of the region"):
        small.read(BAR0, HBM_TRAINING, 4)


@pytest.mark.parametrize(("product", "stored"), [("rtx-audio", b"\x01\x02\x03\x04"), ("audio", bytes(4))])
def test_the_audio_function_answers_nothing(product: str, stored: bytes) -> None:
    """The sound driver takes bytes of its own that it reads back for answers of a codec."""
    card = GpuFunction(FUNCTIONS[product], 0, lambda line: None)
    card.write(BAR0, 0x58, b"\x01\x02\x03\x04")
    assert card.read(BAR0, 0x58, 4) == stored
    assert bool(any(card.read(BAR0, 0, 4))) == (product != "audio")


def test_a_function_that_has_fallen_off_the_bus(gh: Rig) -> None:
    gh.client.put(CONFIG, 0x10, 0xE0000000)
    assert control(gh.gpu, "gone")["gone"]
    assert gh.client.word(CONFIG, 0) == gh.client.word(BAR0, C2C_LINK) == 0xFFFFFFFF
    gh.client.put(BAR0, 0x40, 1)
    gh.client.call(proto.CMD_RESET)
    assert not control(gh.gpu, "back")["gone"]
    assert (gh.client.word(CONFIG, 0), gh.client.word(BAR0, 0x40)) == (0x234210DE, 0)
    assert gh.client.word(CONFIG, 0x10) == 0xE000000C, "a reset does not reach it"
    assert gh.gpu.resets == 0
