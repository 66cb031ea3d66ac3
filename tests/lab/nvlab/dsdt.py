# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The DSDT that QEMU makes for an amd64 host, read from the memory of a machine that has just run its firmware.

It is needed to override it (aml.with_64_bit_integers), and it depends on every device: so it is read from the same
machine, a moment before the real boot, and not kept. The virt machine's DSDT is of revision 2 and needs none of this.
"""

from __future__ import annotations

import struct
import time
from pathlib import Path

from . import qmp
from .errors import LabError
from .processes import end, launch

# SeaBIOS puts the tables at the end of the RAM below 4 GiB, which is 2 GiB on a q35 with 4 GiB; OVMF has them below
# what it keeps for itself there.
TABLES_END = 2 << 30
TABLES_SIZE = 64 << 20
TIMEOUT = 60.0  # seconds; SeaBIOS takes one or two


def find_table(memory: bytes, signature: bytes) -> bytes | None:
    """Return the first table with this signature and a correct checksum, or None."""
    at = memory.find(signature)
    while at >= 0:
        length, = struct.unpack_from("<I", memory, at + 4) if at + 8 <= len(memory) else (0,)
        table = memory[at:at + length]
        if 36 < length == len(table) and sum(table) & 0xFF == 0:
            return table
        at = memory.find(signature, at + 4)
    return None


def read_dsdt(argv: list[str], monitor: Path, log: Path, dump: Path) -> bytes:
    """Run ``argv``, a QEMU without a kernel, until its firmware has placed the DSDT; return the table.

    ``dump`` is a file that QEMU may write and that is gone afterwards. Raises LabError when no table appears.
    """
    machine = launch(argv, log)
    deadline = time.monotonic() + TIMEOUT
    try:
        while time.monotonic() < deadline and machine.alive():
            time.sleep(0.5)
            if not monitor.exists():
                continue
            qmp.execute(monitor, "pmemsave", {"val": TABLES_END - TABLES_SIZE, "size": TABLES_SIZE,
                                              "filename": str(dump)})
            if (table := find_table(dump.read_bytes(), b"DSDT")) is not None:
                return table
    finally:
        end([machine])
        dump.unlink(missing_ok=True)
        monitor.unlink(missing_ok=True)
    raise LabError(f"QEMU's firmware placed no DSDT within {TIMEOUT:.0f} s; see {log}.")
