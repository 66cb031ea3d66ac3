# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The server's half of the vfio-user protocol, version 0.0 (docs/interop/vfio-user.rst in QEMU's source).

Only what QEMU's vfio-user-pci sends to a device without DMA. The structures are those of linux/vfio.h.
"""

from __future__ import annotations

import array
import errno
import json
import os
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Protocol

HEADER = struct.Struct("<HHIII")  # message id, command, size with header, flags, error
REGION_ACCESS = struct.Struct("<QII")  # offset, region, count
REGION_INFO = struct.Struct("<IIIIQQ")  # argsz, flags, index, cap_offset, size, offset
IRQ_INFO = struct.Struct("<IIII")  # argsz, flags, index, count
IRQ_SET = struct.Struct("<IIIII")  # argsz, flags, index, start, count
VERSION = struct.Struct("<HH")

(CMD_VERSION, CMD_DMA_MAP, CMD_DMA_UNMAP, CMD_DEVICE_INFO, CMD_REGION_INFO, CMD_REGION_IO_FDS, CMD_IRQ_INFO,
 CMD_SET_IRQS, CMD_REGION_READ, CMD_REGION_WRITE, CMD_DMA_READ, CMD_DMA_WRITE, CMD_RESET) = range(1, 14)
FLAG_REPLY, FLAG_NO_REPLY, FLAG_ERROR = 0x01, 0x10, 0x20

DEVICE_FLAGS = 0x3  # VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI
NUM_REGIONS, NUM_IRQS = 9, 5
READ_WRITE = 0x3
IRQ_INTX, IRQ_MSI, IRQ_ERROR, IRQ_REQUEST = 0, 1, 3, 4
EVENTFD, MASKABLE, AUTOMASKED, NORESIZE = 1, 2, 4, 8
IRQ_FLAGS = {IRQ_INTX: EVENTFD | MASKABLE | AUTOMASKED, IRQ_MSI: EVENTFD | NORESIZE,
             IRQ_ERROR: EVENTFD | NORESIZE, IRQ_REQUEST: EVENTFD | NORESIZE}
MAX_TRANSFER = 1 << 20  # bytes
MAX_FDS = 8


class Device(Protocol):
    """What the protocol needs of a device. Accesses outside a region raise ValueError."""

    @property
    def sizes(self) -> Mapping[int, int]:
        """Return region index -> size in bytes; a region that is absent has size 0."""

    def read(self, region: int, offset: int, count: int) -> bytes:
        """Return bytes of a region."""

    def write(self, region: int, offset: int, data: bytes) -> None:
        """Store bytes in a region."""

    def reset(self, cause: str) -> None:
        """Reset the device."""


class RefusedError(Exception):
    """A request that is answered with an errno."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number


class Session:
    """One client, from its first message until it hangs up."""

    def __init__(self, connection: socket.socket, device: Device, log: Callable[[str], None]) -> None:
        self._connection = connection
        self._device = device
        self._log = log
        self._fds: list[int] = []
        self._eventfds: dict[tuple[int, int, int], int] = {}
        self._handlers: dict[int, Callable[[bytes], bytes]] = {
            CMD_VERSION: self._version,
            CMD_DMA_MAP: self._dma_map,
            CMD_DMA_UNMAP: lambda body: body,
            CMD_DEVICE_INFO: lambda body: struct.pack("<IIII", 16, DEVICE_FLAGS, NUM_REGIONS, NUM_IRQS),
            CMD_REGION_INFO: self._region_info,
            CMD_IRQ_INFO: self._irq_info,
            CMD_SET_IRQS: self._set_irqs,
            CMD_REGION_READ: self._region_read,
            CMD_REGION_WRITE: self._region_write,
            CMD_RESET: self._reset,
        }

    def serve(self) -> None:
        """Answer requests until the client hangs up; closes what the client sent, not the connection."""
        try:
            while self._serve_one():
                pass
        finally:
            for fd in (*self._fds, *self._eventfds.values()):
                os.close(fd)

    def _serve_one(self) -> bool:
        header = self._receive(HEADER.size)
        if header is None:
            return False
        message, command, size, flags, _ = HEADER.unpack(header)
        body = self._receive(size - HEADER.size)
        if body is None:
            return False
        error, reply = self._answer(command, body)
        if flags & FLAG_NO_REPLY:
            return True
        answer_flags = FLAG_REPLY | (FLAG_ERROR if error else 0)
        self._connection.sendall(HEADER.pack(message, command, HEADER.size + len(reply), answer_flags, error) + reply)
        return True

    def _answer(self, command: int, body: bytes) -> tuple[int, bytes]:
        handler = self._handlers.get(command)
        try:
            if handler is None:
                raise RefusedError(errno.ENOTTY)
            return 0, handler(body)
        except (RefusedError, ValueError, struct.error) as error:
            self._log(f"command {command} refused: {error}")
            return error.number if isinstance(error, RefusedError) else errno.EINVAL, b""
        finally:
            for fd in self._fds:  # what no handler took
                os.close(fd)
            self._fds.clear()

    def _receive(self, count: int) -> bytes | None:
        data = bytearray()
        while len(data) < count:
            part, ancillary, _, _ = self._connection.recvmsg(count - len(data), socket.CMSG_SPACE(4 * MAX_FDS))
            for level, kind, payload in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    self._fds.extend(array.array("i", payload[:len(payload) // 4 * 4]))
            if not part:
                return None
            data += part
        return bytes(data)

    def _version(self, body: bytes) -> bytes:
        major, minor = VERSION.unpack_from(body)
        self._log(f"client speaks version {major}.{minor} {body[VERSION.size:].rstrip(bytes(1)).decode()}")
        if major != 0:
            raise RefusedError(errno.EINVAL)
        capabilities = {"capabilities": {"max_msg_fds": MAX_FDS, "max_data_xfer_size": MAX_TRANSFER}}
        return VERSION.pack(0, 0) + json.dumps(capabilities).encode() + b"\0"

    def _dma_map(self, body: bytes) -> bytes:
        # The function does no DMA: the guest's memory is accepted and never looked at.
        del body
        return b""

    def _region_info(self, body: bytes) -> bytes:
        index = REGION_INFO.unpack_from(body)[2]
        size = self._device.sizes.get(index, 0)
        return REGION_INFO.pack(REGION_INFO.size, READ_WRITE if size else 0, index, 0, size, 0)

    def _irq_info(self, body: bytes) -> bytes:
        index = IRQ_INFO.unpack_from(body)[2]
        flags = IRQ_FLAGS.get(index, 0)
        return IRQ_INFO.pack(IRQ_INFO.size, flags, index, 1 if flags else 0)

    def _set_irqs(self, body: bytes) -> bytes:
        _, flags, index, start, _ = IRQ_SET.unpack_from(body)
        # Kept open and never signalled: the function raises no interrupt.
        for number, fd in enumerate(self._fds, start):
            previous = self._eventfds.pop((index, number, flags), None)
            if previous is not None:
                os.close(previous)
            self._eventfds[index, number, flags] = fd
        self._fds.clear()
        return b""

    def _region_read(self, body: bytes) -> bytes:
        offset, region, count = REGION_ACCESS.unpack_from(body)
        if count > MAX_TRANSFER:
            raise RefusedError(errno.EINVAL)
        return body[:REGION_ACCESS.size] + self._device.read(region, offset, count)

    def _region_write(self, body: bytes) -> bytes:
        offset, region, count = REGION_ACCESS.unpack_from(body)
        data = body[REGION_ACCESS.size:]
        if len(data) != count:
            raise RefusedError(errno.EINVAL)
        self._device.write(region, offset, data)
        return body[:REGION_ACCESS.size]

    def _reset(self, body: bytes) -> bytes:
        del body
        self._device.reset("VFIO_USER_DEVICE_RESET")
        return b""
