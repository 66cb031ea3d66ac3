# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is remembered of a function before it is bound: enough to give it back exactly."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Optional

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.journal import STATE_DIR, StateFile
from .._core.plan import Call
from .model import parse_address

_KEY = "binding"


@dataclass(frozen=True)
class BindingRecord:
    """State before the first bind, and what it was bound to.

    ``companion_of``: the GPUs whose group made us bind it. ``previous_module``: what to load where the previous driver
    is gone. ``group``: the IOMMU group at the last run. ``device_group``: the user group that has its device nodes.
    Records of version 1.0.0 have none of the last three.
    """

    address: str
    vendor: str
    device: str
    driver: str
    module: str
    previous_driver: Optional[str]
    previous_override: Optional[str]
    persistent: bool
    companion_of: tuple[str, ...] = ()
    previous_module: Optional[str] = None
    group: Optional[int] = None
    device_group: Optional[str] = None

    @property
    def vendor_device(self) -> str:
        return f"{self.vendor}:{self.device}"


def load_record(host: Host, address: str) -> Optional[BindingRecord]:
    """The record of a function, or None. Raises PassthroughError where the file is not one of ours."""
    value = StateFile(host, address).load().get(_KEY)
    if value is None:
        return None
    try:
        return BindingRecord(**{**value, "companion_of": tuple(value["companion_of"])})
    except (TypeError, KeyError) as error:
        raise PassthroughError(f"{STATE_DIR}/{address}.json holds no valid binding ({error}): move it away, then bind "
                               "the device again.") from error


def load_records(host: Host) -> dict[str, BindingRecord]:
    """The records of all functions, by address."""
    found = {}
    for name in host.listdir(STATE_DIR):
        if not name.endswith(".json") or ":" not in name:
            continue
        record = load_record(host, parse_address(name[:-len(".json")]))
        if record is not None:
            found[record.address] = record
    return found


def save_record(host: Host, record: BindingRecord) -> None:
    """Writes the record beside whatever else the function's file holds."""
    state = StateFile(host, record.address)
    value: dict[str, Any] = state.load()
    value[_KEY] = {**asdict(record), "companion_of": list(record.companion_of)}
    state.save(value)


def save_step(record: BindingRecord) -> Call:
    """The plan step that saves a record."""
    return Call(f"record {record.address} in {STATE_DIR}", lambda host: save_record(host, record))


def forget_step(address: str) -> Call:
    """The plan step that forgets a record."""
    return Call(f"forget {address} in {STATE_DIR}", lambda host: forget_record(host, address))


def forget_record(host: Host, address: str) -> None:
    """Drops the binding and the verification, which speaks of a binding that is no more."""
    state = StateFile(host, address)
    value = state.load()
    value.pop(_KEY, None)
    value.pop("verification", None)
    state.save(value)
