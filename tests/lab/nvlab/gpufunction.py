# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The PCI function of an emulated GPU: what its registers answer, and when it is ready."""

from __future__ import annotations

import math
import struct
import threading
import time
from collections.abc import Callable

from .pciconfig import SIZE as CONFIG_SIZE
from .pciconfig import ConfigSpace, gpu_config
from .products import VENDOR, Product

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
        self._clock = clock
        self._lock = threading.RLock()
        self._reset_delay = 0.0
        self._ready_at = 0.0
        self._load_registers()

    def _load_registers(self) -> None:
        self._memory = {BAR0: bytearray(self.product.bar0), BAR2: bytearray(self.product.bar2)}
        struct.pack_into("<I", self._memory[BAR0], 0, CHIP_ID)
        bars = {BAR0: self.product.bar0, BAR2: self.product.bar2}
        self._config: ConfigSpace = gpu_config(VENDOR, self.product.device_id, bars, SERIAL + self._index,
                                               self.product.dvsec_flags)

    def ready(self) -> bool:
        """Return whether the readiness registers read 0xFF now."""
        return self._clock() >= self._ready_at

    def become_ready(self) -> None:
        """Be ready now and right after every reset."""
        self._set_readiness(0.0)

    def become_not_ready(self) -> None:
        """Never be ready, whatever resets come, until told otherwise: what a C2C link that is down looks like."""
        self._set_readiness(math.inf)

    def become_ready_after(self, seconds: float) -> None:
        """Be ready ``seconds`` from now and from every reset."""
        self._set_readiness(seconds)

    def _set_readiness(self, delay: float) -> None:
        with self._lock:
            self._reset_delay = delay
            self._ready_at = self._clock() + delay
        self._log(f"readiness delay {delay:g} s")

    def reset(self, cause: str) -> None:
        """Return every register to its reset state and start the readiness delay again."""
        with self._lock:
            self.resets += 1
            self._ready_at = self._clock() + self._reset_delay
            self._load_registers()
        self._log(f"reset by {cause}")

    def read(self, region: int, offset: int, count: int) -> bytes:
        """Return ``count`` bytes of a region. Raises ValueError outside of it."""
        with self._lock:
            if region == CONFIG:
                return self._config.read(offset, count)
            memory = self._bounded(region, offset, count)
            if region == BAR0:
                status = READY if self.ready() else 0
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
            wait = max(0.0, self._ready_at - self._clock())
            return {"ready": self.ready(), "resets": self.resets,
                    "ready_in": None if math.isinf(wait) else round(wait, 3)}
