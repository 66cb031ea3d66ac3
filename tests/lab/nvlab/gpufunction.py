# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The PCI function of an emulated GPU: what its registers answer, and when it is ready."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable

from .pciconfig import CXL_RANGE_STATUS, ConfigSpace, gpu_config
from .pciconfig import SIZE as CONFIG_SIZE
from .products import VENDOR, Product
from .readiness import CxlStatus, Delay

BAR0, BAR2, CONFIG = 0, 2, 7  # VFIO_PCI_*_REGION_INDEX
C2C_LINK = 0x1498       # reads 0xFF when the NVLink-C2C link is up
HBM_TRAINING = 0x200BC  # reads 0xFF when the memory is trained
READY = 0xFF
CHIP_ID = 0x180000A1    # register 0: something to recognise
SERIAL = 0x48B02D0001020300


class GpuFunction:
    """Regions of one function. ``clock`` returns seconds and never goes back; ``log`` takes one line."""

    def __init__(self, product: Product, index: int, log: Callable[[str], None],
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.product = product
        self.sizes = {BAR0: product.bar0, BAR2: product.bar2, CONFIG: CONFIG_SIZE}
        self.resets = 0
        self._index = index
        self._log = log
        self._lock = threading.RLock()
        self._memory_ready = Delay(clock)
        self._cxl = CxlStatus(clock) if product.cxl else None
        self._load_registers()

    def _load_registers(self) -> None:
        self._memory = {BAR0: bytearray(self.product.bar0), BAR2: bytearray(self.product.bar2)}
        struct.pack_into("<I", self._memory[BAR0], 0, CHIP_ID)
        bars = {BAR0: self.product.bar0, BAR2: self.product.bar2}
        self._config: ConfigSpace = gpu_config(VENDOR, self.product.device_id, bars, SERIAL + self._index,
                                               self.product.dvsec_flags, self._cxl is not None)

    def set_ready_delay(self, seconds: float) -> None:
        """Be ready ``seconds`` from now and from every reset; math.inf is what a C2C link that is down looks like."""
        with self._lock:
            self._memory_ready.set(seconds)
        self._log(f"readiness delay {seconds:g} s")

    def set_info_delay(self, seconds: float) -> None:
        """Have valid CXL range information ``seconds`` from now and from every reset; math.inf is never."""
        with self._lock:
            self._require_cxl().info.set(seconds)
        self._log(f"CXL information delay {seconds:g} s")

    def set_timeout_code(self, code: int) -> None:
        """Set the three bits that say how long the memory may take to become active."""
        with self._lock:
            self._require_cxl().timeout_code = code
        self._log(f"CXL time-out code {code}")

    def set_answering(self, answers: bool) -> None:
        """Answer reads of the CXL status or, as a function that has gone does, with all ones."""
        with self._lock:
            self._require_cxl().answers = answers
        self._log("CXL status answers" if answers else "CXL status reads as all ones")

    def _require_cxl(self) -> CxlStatus:
        if self._cxl is None:
            raise ValueError(f"{self.product.name} has no CXL DVSEC")
        return self._cxl

    def reset(self, cause: str) -> None:
        """Return every register to its reset state and start the readiness delay again."""
        with self._lock:
            self.resets += 1
            self._memory_ready.restart()
            if self._cxl is not None:
                self._cxl.info.restart()
            self._load_registers()
        self._log(f"reset by {cause}")

    def read(self, region: int, offset: int, count: int) -> bytes:
        """Return ``count`` bytes of a region. Raises ValueError outside of it."""
        with self._lock:
            if region == CONFIG:
                if self._cxl is not None:
                    self._config.put("I", CXL_RANGE_STATUS, self._cxl.dword(self._memory_ready.over()))
                return self._config.read(offset, count)
            memory = self._bounded(region, offset, count)
            # A function with a CXL DVSEC has no C2C registers: what is read there is what was written.
            if region == BAR0 and self._cxl is None:
                status = READY if self._memory_ready.over() else 0
                for register in (C2C_LINK, HBM_TRAINING):
                    struct.pack_into("<I", memory, register, status)
            data = bytes(memory[offset:offset + count])
        self._log(f"bar{region} read {offset:#x}/{count} = {data[::-1].hex()}")
        return data

    def write(self, region: int, offset: int, data: bytes) -> None:
        """Store ``data`` in a region; a function level reset takes effect. Raises ValueError outside of it."""
        where = "config" if region == CONFIG else f"bar{region}"
        self._log(f"{where} write {offset:#x}/{len(data)} = {data[::-1].hex()}")
        with self._lock:
            if region == CONFIG:
                if self._config.write(offset, data):
                    self.reset("FLR")
                return
            memory = self._bounded(region, offset, len(data))
            memory[offset:offset + len(data)] = data

    def _bounded(self, region: int, offset: int, count: int) -> bytearray:
        memory = self._memory.get(region)
        if memory is None or offset < 0 or offset + count > len(memory):
            raise ValueError(f"access of {count} bytes at {offset:#x} of region {region} leaves the region")
        return memory

    def describe(self) -> dict[str, object]:
        """Return the state for the control socket; times in seconds."""
        with self._lock:
            state: dict[str, object] = {"ready": self._memory_ready.over(), "resets": self.resets,
                                        "ready_in": self._memory_ready.remaining()}
            if self._cxl is not None:
                state["cxl"] = self._cxl.describe()
            return state
