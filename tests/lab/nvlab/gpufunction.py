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
from .products import CLASS_AUDIO, VENDOR, Product
from .readiness import CxlStatus, Delay
from .registers import Registers

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
        self.sizes = {**{bar.index: bar.size for bar in product.bars}, CONFIG: CONFIG_SIZE}
        self.resets = 0
        self._index = index
        self._log = log
        self._lock = threading.RLock()
        self._memory_ready = Delay(clock)
        self._cxl = CxlStatus(clock) if product.cxl else None
        # Only a GPU with coherent memory has the C2C registers, unless it has a CXL DVSEC instead, or no room for them.
        self._has_c2c = bool(product.memory) and not product.cxl and self.sizes[BAR0] > HBM_TRAINING
        self._gone = False
        self._load_registers()

    def _load_registers(self) -> None:
        # The kernel's sound driver takes the audio function. It gives up on a controller that answers nothing, and
        # drowns the host in messages when it reads its own bytes as answers.
        audio = self.product.class_code == CLASS_AUDIO
        self._memory = {bar.index: Registers(bar.size, writable=not audio) for bar in self.product.bars}
        if not audio:
            self._memory[BAR0].write(0, struct.pack("<I", CHIP_ID))
        self._config: ConfigSpace = gpu_config(VENDOR, self.product.device_id, self.product.class_code,
                                               self.product.bars, SERIAL + self._index, self.product.dvsec_flags,
                                               self._cxl is not None)

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

    def set_gone(self, gone: bool) -> None:
        """Be a function that has fallen off the bus: reads are all ones and nothing else has an effect; or be back."""
        with self._lock:
            self._gone = gone
        self._log("has fallen off the bus" if gone else "is back on the bus")

    def _require_cxl(self) -> CxlStatus:
        if self._cxl is None:
            raise ValueError(f"{self.product.name} has no CXL DVSEC")
        return self._cxl

    def reset(self, cause: str) -> None:
        """Return every register to its reset state and start the readiness delay again."""
        with self._lock:
            if self._gone:
                return
            self.resets += 1
            self._memory_ready.restart()
            if self._cxl is not None:
                self._cxl.info.restart()
            self._load_registers()
        self._log(f"reset by {cause}")

    def read(self, region: int, offset: int, count: int) -> bytes:
        """Return ``count`` bytes of a region. Raises ValueError outside of it."""
        with self._lock:
            data = self._read(region, offset, count)
            if self._gone:
                return b"\xff" * count
        if region != CONFIG:
            self._log(f"bar{region} read {offset:#x}/{count} = {data[::-1].hex()}")
        return data

    def _read(self, region: int, offset: int, count: int) -> bytes:
        if region == CONFIG:
            if self._cxl is not None:
                self._config.put("I", CXL_RANGE_STATUS, self._cxl.dword(self._memory_ready.over()))
            return self._config.read(offset, count)
        memory = self._region(region)
        # Without C2C registers what is read there is what was written.
        if region == BAR0 and self._has_c2c:
            status = READY if self._memory_ready.over() else 0
            for register in (C2C_LINK, HBM_TRAINING):
                memory.write(register, struct.pack("<I", status))
        return memory.read(offset, count)

    def write(self, region: int, offset: int, data: bytes) -> None:
        """Store ``data`` in a region; a function level reset takes effect. Raises ValueError outside of it."""
        where = "config" if region == CONFIG else f"bar{region}"
        self._log(f"{where} write {offset:#x}/{len(data)} = {data[::-1].hex()}")
        with self._lock:
            if self._gone:
                return
            if region != CONFIG:
                self._region(region).write(offset, data)
            elif self._config.write(offset, data):
                self.reset("FLR")

    def _region(self, region: int) -> Registers:
        if region not in self._memory:
            raise ValueError(f"there is no region {region}")
        return self._memory[region]

    def describe(self) -> dict[str, object]:
        """Return the state for the control socket; times in seconds."""
        with self._lock:
            state: dict[str, object] = {"ready": self._memory_ready.over(), "resets": self.resets,
                                        "ready_in": self._memory_ready.remaining(), "gone": self._gone}
            if self._cxl is not None:
                state["cxl"] = self._cxl.describe()
            return state
