# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a GPU may take until its memory is ready, which its driver waits for when it is bound and after each reset.

Source: the kernel's nvgrace driver since 6.19, files/kmod/ready.c; the status dword is that of the CXL Device DVSEC
(CXL 3.1, 8.1.3.8): bit 0 valid, bits 15:13 the code of the time, 4 ** code seconds.
"""

from __future__ import annotations

from typing import Optional

from .sysfs import find_dvsec

_CXL_VENDOR_ID = 0x1E98
_CXL_DEVICE_DVSEC = 0
_CXL_STATUS_OFFSET = 0x1C
_CXL_LAST_CODE = 4
_CXL_VALID_SECONDS = 1
_LEGACY_SECONDS = 30


def readiness_seconds(config: bytes) -> int:
    """The longest wait for a GPU with this config space (4096 bytes), in seconds: 30, or what its CXL Device DVSEC
    says."""
    seconds = cxl_seconds(config)
    return _LEGACY_SECONDS if seconds is None else seconds


def cxl_seconds(config: bytes) -> Optional[int]:
    """What a CXL Device DVSEC says, from 2 up to 257 seconds, which is also the answer where it does not say it yet.
    None for a GPU without one."""
    offset = find_dvsec(config, _CXL_VENDOR_ID, _CXL_DEVICE_DVSEC)
    if offset is None or offset + _CXL_STATUS_OFFSET + 4 > len(config):
        return None
    status = int.from_bytes(config[offset + _CXL_STATUS_OFFSET:offset + _CXL_STATUS_OFFSET + 4], "little")
    code = min(status >> 13 & 7, _CXL_LAST_CODE) if status & 1 else _CXL_LAST_CODE
    return int(_CXL_VALID_SECONDS + 4 ** code)
