# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What region_verify does: decides for each GPU whether it must and may be opened."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Optional

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.runner import diff_of
from .._gpu import sysfs
from .._gpu.holders import UsageReader
from .._gpu.model import PciFunction
from .._gpu.select import SelectedGpu, parse_requests, select_gpus
from .driver import DriverFacts, read_driver
from .record import FAIL, DeviceInUseError, Fingerprint, VerificationRecord, load_verification

if TYPE_CHECKING:
    from .device import Kernel
    from .look import Look

Entry = dict[str, Any]

_X86 = ("x86_64", "i686", "amd64")


@dataclass(frozen=True)
class VerifyOptions:
    """The module's options. ``timeout`` in seconds for each GPU, its readiness after the reset included; None: as long
    as the GPU may take, and what the checks need."""

    gpus: Optional[Sequence[Mapping[str, Any]]]
    layout: str = "auto"
    probe: str = "read"
    api: str = "auto"
    force: bool = False
    timeout: Optional[float] = None
    check_mode: bool = False


def utc_now() -> str:
    """The time of a verification, ISO 8601 in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class Verifier:
    """One run over the GPUs of a host. ``log`` takes lines for the host's journal; ``kernel``, ``now`` and ``machine``
    are replaced in tests."""

    def __init__(self, host: Host, options: VerifyOptions, kernel: Optional[Kernel] = None,
                 now: Callable[[], str] = utc_now, log: Callable[[str], None] = lambda _line: None,
                 machine: Optional[str] = None) -> None:
        self.host = host
        self.options = options
        self.kernel = kernel
        self.now = now
        self.log = log
        self.x86 = (machine or os.uname().machine) in _X86
        self.actions: list[str] = []
        self.boot_id = host.read_text("/proc/sys/kernel/random/boot_id") or ""

    def run(self) -> dict[str, Any]:
        """The module's result. Raises PassthroughError, with the result in its details, where a verdict is fail."""
        if self.options.timeout is not None and self.options.timeout < 1:
            raise PassthroughError(f"timeout is {self.options.timeout}: give at least 1 second.")
        selected = select_gpus(parse_requests(self.options.gpus), sysfs.list_identities(self.host))
        reader = UsageReader(self.host)
        before, entries = {}, []
        for gpu in selected:
            record = load_verification(self.host, gpu.address)
            before[gpu.address] = record.entry["verdict"] if record else "never verified"
            entries.append(self._verify(gpu, record, reader))
        after = {entry["address"]: entry["verdict"] for entry in entries}
        for entry in entries:
            if entry["from_record"] and entry["verdict"] != "in-use":
                before[entry["address"]] = entry["verdict"]
        result = {"changed": bool(self.actions), "actions": self.actions, "devices": entries,
                  "diff": diff_of(before, after)}
        failed = [entry for entry in entries if entry["verdict"] == FAIL]
        if failed:
            text = " ".join(f"{entry['address']}: {entry['reasons'][0]}" for entry in failed)
            raise PassthroughError(f"Verification failed. {text}", **result)
        return result

    def _verify(self, gpu: SelectedGpu, record: Optional[VerificationRecord], reader: UsageReader) -> Entry:
        function = sysfs.read_function(self.host, gpu.address)
        driver = read_driver(self.host, function.driver)
        fingerprint = self._fingerprint(gpu, function, driver)
        valid = record is not None and record.serves(fingerprint)
        usage = reader.usage(function)
        if usage.busy:
            return self._in_use(gpu, function, driver, record if valid else None, usage.reasons())
        if record is not None and valid and not self.options.force:
            return {**record.entry, "from_record": True}
        if self.options.check_mode:
            self._will_open(gpu)
            return self._look().unopened(gpu, function, driver, "skipped", ["skipped: predicted"])
        if function.vfio_device is None:
            reason = f"It is bound to {function.driver or 'no driver'} and not to a VFIO driver: run gpu_driver first."
            return self._look().unopened(gpu, function, driver, FAIL, [reason])
        # Once more, and now: the first look may be minutes old where GPUs before this one were slow.
        usage = UsageReader(self.host).usage(function)
        if usage.busy:
            return self._in_use(gpu, function, driver, None, usage.reasons())
        look = self._look()
        try:
            entry = look.open_and_judge(gpu, function, driver, fingerprint)
        except DeviceInUseError as error:
            return self._in_use(gpu, function, driver, None, [error.message])
        if gpu.address in look.opened:
            self._will_open(gpu)
        return entry

    def _will_open(self, gpu: SelectedGpu) -> None:
        self.actions.append(f"open {gpu.address}, which resets it, and verify its regions")

    def _look(self) -> Look:
        """Loaded here: a run that finds valid records, which is what most runs do, needs none of it."""
        from .look import Look

        options = self.options
        return Look(self.host, options.layout, options.api, options.probe, options.timeout, self.now, self.log,
                    self.x86, self.kernel)

    def _fingerprint(self, gpu: SelectedGpu, function: PciFunction, driver: DriverFacts) -> Fingerprint:
        return Fingerprint(
            boot_id=self.boot_id, vendor_device=gpu.identity.vendor_device, group=function.group,
            driver=driver.name, srcversion=driver.srcversion, driver_layout=driver.layout, layout=self.options.layout,
            api=self.options.api, expected_memory=gpu.expected_memory,
            product=gpu.product.key if gpu.product else None, probe=self.options.probe)

    def _in_use(self, gpu: SelectedGpu, function: PciFunction, driver: DriverFacts,
                record: Optional[VerificationRecord], holders: list[str]) -> Entry:
        """A device that somebody holds is reported from its record and never opened."""
        if record is None:
            reason = "in use, not verified since it was bound or since the host started"
            return self._look().unopened(gpu, function, driver, "in-use", [reason, *holders])
        reason = f"in use, verified at {record.entry['verified_at']}: {record.entry['verdict']}"
        return {**record.entry, "verdict": "in-use", "reasons": [reason, *holders], "from_record": True}
