# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel says of a device while something is done to it, so that a failure names its reason by itself."""

from __future__ import annotations

import contextlib
import os
import re
from typing import Optional

from .host import Host

_KMSG = "/dev/kmsg"
# "PRIORITY,SEQUENCE,MICROSECONDS,FLAGS[,...];TEXT"; the lower three bits of the priority are the level, and lines that
# begin with a blank are the record's properties (Documentation/ABI/testing/dev-kmsg).
_RECORD = re.compile(r"(\d+),[^;]*;(.*)")
_WARNING = 4
_RECORD_BYTES = 8192
_SHOWN = 2
_LONGEST = 300


class KernelLog:
    """The kernel's warnings and errors about one device: from the moment that this object is made, or with ``all_kept``
    what the kernel still keeps of it. A context manager.

    Where the log cannot be read, there is nothing in it: a reason that is missing must not hide the failure itself.
    """

    def __init__(self, host: Host, address: str, all_kept: bool = False) -> None:
        self._name = f" {address}: "
        self._fd: Optional[int] = None
        with contextlib.suppress(OSError):
            self._fd = os.open(host.path(_KMSG), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if not all_kept:
                os.lseek(self._fd, 0, os.SEEK_END)

    def __enter__(self) -> KernelLog:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._fd is not None:
            os.close(self._fd)

    def reason(self, words: str = "", driver: str = "") -> Optional[str]:
        """The last messages with these words, without the names of driver and device, as one text; None where there are
        none. With ``driver`` those of that driver alone, as sysfs names it: an earlier one may have said something."""
        begins = f"{driver} " if driver else ""
        found = [text.partition(self._name)[2].strip() for level, text in self._records()
                 if level <= _WARNING and self._name in f" {text}" and words in text and text.startswith(begins)]
        return "; ".join(found[-_SHOWN:])[:_LONGEST] or None

    def _records(self) -> list[tuple[int, str]]:
        records = []
        while self._fd is not None:
            try:
                data = os.read(self._fd, _RECORD_BYTES)
            except BrokenPipeError:  # the record was overwritten before it was read; the next read goes on
                continue
            except OSError:
                break
            if not data:
                break
            for line in data.decode("utf-8", "replace").splitlines():
                match = _RECORD.fullmatch(line)
                if match:
                    records.append((int(match.group(1)) & 7, match.group(2)))
        return records
