# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of a verification, so that a converged run need not open, and thereby reset, a device."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Optional

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.journal import StateFile

FAIL = "fail"
_KEY = "verification"
_PROBES = ("none", "read", "full")


class DeviceInUseError(PassthroughError):
    """The kernel says that somebody else has the device open."""


@dataclass(frozen=True)
class Fingerprint:
    """Everything that a verdict depends on. ``probe`` is how deep the look was: a deeper one serves a shallower.
    ``layout`` and ``api`` are what was asked for, ``driver_layout`` is the value of the driver's parameter."""

    boot_id: str
    vendor_device: str
    group: Optional[int]
    driver: Optional[str]
    srcversion: Optional[str]
    driver_layout: Optional[str]
    layout: str
    api: str
    expected_memory: Optional[int]
    product: Optional[str]
    probe: str


@dataclass(frozen=True)
class VerificationRecord:
    """A verdict that was reached, with the device's entry in the module's result."""

    fingerprint: Fingerprint
    entry: dict[str, Any]

    def serves(self, wanted: Fingerprint) -> bool:
        """Whether the verdict still holds for what is asked now."""
        mine, asked = asdict(self.fingerprint), asdict(wanted)
        deep_enough = _PROBES.index(mine.pop("probe")) >= _PROBES.index(asked.pop("probe"))
        return bool(self.fingerprint.boot_id) and deep_enough and mine == asked


def load_verification(host: Host, address: str) -> Optional[VerificationRecord]:
    """The record of a device; None where there is none, or where it has another version's form."""
    value: Any = StateFile(host, address).load().get(_KEY)
    try:
        record = VerificationRecord(Fingerprint(**value["fingerprint"]), dict(value["entry"]))
        return record if record.fingerprint.probe in _PROBES and "verdict" in record.entry else None
    except (TypeError, KeyError, ValueError):
        return None


def save_verification(host: Host, address: str, record: VerificationRecord) -> None:
    """Writes the record beside whatever else the device's file holds."""
    state = StateFile(host, address)
    state.save({**state.load(), _KEY: {"fingerprint": asdict(record.fingerprint), "entry": record.entry}})


def drop_verification(host: Host, address: str) -> None:
    """Forgets a verdict that no longer holds."""
    state = StateFile(host, address)
    value = state.load()
    if value.pop(_KEY, None) is not None:
        state.save(value)
