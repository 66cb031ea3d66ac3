# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What region_verify does: decides for each GPU whether it may be opened, opens it, judges it, keeps the record."""

from __future__ import annotations

import datetime
import mmap
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.runner import diff_of
from .._gpu import sysfs
from .._gpu.child import run_in_child
from .._gpu.holders import UsageReader
from .._gpu.model import PciFunction
from .._gpu.select import SelectedGpu, parse_requests, select_gpus
from .._host.acpi import read_firmware_properties
from .device import DeviceInUseError, Kernel, choose_api, open_device
from .driver import DriverFacts, implementation, read_driver
from .judge import FAIL, Expectation, Judgement, judge
from .layout import PLAIN_DRIVER, has_mig_bug, readiness_seconds
from .observe import Observation, observe
from .predict import predict
from .record import Fingerprint, VerificationRecord, drop_verification, load_verification, save_verification

Entry = dict[str, Any]

# What the checks need beside the wait for readiness; on an idle host they take less than one.
_CHECK_SECONDS = 30
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
        self.kernel = kernel or Kernel()
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
            self.actions.append(f"open {gpu.address}, which resets it, and verify its regions")
            return self._unopened(gpu, function, driver, "skipped", ["skipped: predicted"])
        if function.vfio_device is None:
            reason = f"It is bound to {function.driver or 'no driver'} and not to a VFIO driver: run gpu_driver first."
            return self._unopened(gpu, function, driver, FAIL, [reason])
        return self._open_and_judge(gpu, function, driver, fingerprint)

    def _open_and_judge(self, gpu: SelectedGpu, function: PciFunction, driver: DriverFacts,
                        fingerprint: Fingerprint) -> Entry:
        api: Optional[str] = None
        try:
            api = choose_api(self.host, function, self.options.api)
            self.actions.append(f"open {gpu.address}, which resets it, and verify its regions")
            seen = self._look(function, api)
        except DeviceInUseError as error:
            self.actions.pop()
            return self._in_use(gpu, function, driver, None, [error.message])
        except PassthroughError as error:
            drop_verification(self.host, gpu.address)
            return {**self._unopened(gpu, function, driver, FAIL, [error.message]), "api": api}
        judgement = judge(seen, self._expectation(gpu, function, driver))
        entry = self._entry(function, driver, judgement, api)
        if judgement.verdict == FAIL:
            drop_verification(self.host, gpu.address)
        else:
            save_verification(self.host, gpu.address, VerificationRecord(fingerprint, entry))
        return entry

    def _look(self, function: PciFunction, api: str) -> Observation:
        """Opens the device in a child process: its first access may wait in the kernel, or die by a signal."""
        seconds = self._seconds(function)

        def look() -> Observation:
            with open_device(function, api, self.kernel) as device:
                return observe(device, self.options.probe, seconds, function.driver != PLAIN_DRIVER)

        def waiting(elapsed: float) -> None:
            self.log(f"{function.address}: not verified after {elapsed:.0f} of at most {seconds:.0f} seconds; the GPU "
                     "may not be ready yet")

        self.log(f"{function.address}: opening, which resets it; this may take {seconds:.0f} seconds")
        return run_in_child(look, seconds, f"The verification of {function.address}", waiting)

    def _seconds(self, function: PciFunction) -> float:
        """The time that one GPU gets."""
        if self.options.timeout is not None:
            return self.options.timeout
        return readiness_seconds(self._config(function.address)) + _CHECK_SECONDS

    def _expectation(self, gpu: SelectedGpu, function: PciFunction, driver: DriverFacts) -> Expectation:
        return Expectation(
            driver=driver, bars=function.bars, layout=self.options.layout, mig_bug=self._mig_bug(gpu.address),
            product=gpu.product, expected_memory=gpu.expected_memory, page_size=mmap.PAGESIZE,
            firmware_properties=read_firmware_properties(self.host), x86=self.x86)

    def _config(self, address: str) -> bytes:
        return self.host.read_bytes(sysfs.device_path(address, "config")) or b""

    def _mig_bug(self, address: str) -> Optional[bool]:
        return has_mig_bug(self._config(address))

    def _fingerprint(self, gpu: SelectedGpu, function: PciFunction, driver: DriverFacts) -> Fingerprint:
        return Fingerprint(
            boot_id=self.boot_id, vendor_device=gpu.identity.vendor_device, group=function.group,
            driver=driver.name, srcversion=driver.srcversion, driver_layout=driver.layout, layout=self.options.layout,
            api=self.options.api, expected_memory=gpu.expected_memory,
            product=gpu.product.key if gpu.product else None, probe=self.options.probe)

    def _entry(self, function: PciFunction, driver: DriverFacts, judgement: Judgement, api: str) -> Entry:
        return {"address": function.address, "driver": driver.name, "srcversion": driver.srcversion,
                "implementation": judgement.implementation, "api": api, "layout": judgement.layout,
                "verdict": judgement.verdict, "reasons": list(judgement.reasons), "evidence": list(judgement.evidence),
                "notes": list(judgement.notes), "verified_at": self.now(), "from_record": False,
                "memory": judgement.memory, "regions": list(judgement.regions)}

    def _in_use(self, gpu: SelectedGpu, function: PciFunction, driver: DriverFacts,
                record: Optional[VerificationRecord], holders: list[str]) -> Entry:
        """A device that somebody holds is reported from its record and never opened."""
        if record is None:
            reason = "in use, not verified since it was bound or since the host started"
            return self._unopened(gpu, function, driver, "in-use", [reason, *holders])
        reason = f"in use, verified at {record.entry['verified_at']}: {record.entry['verdict']}"
        return {**record.entry, "verdict": "in-use", "reasons": [reason, *holders], "from_record": True}

    def _unopened(self, gpu: SelectedGpu, function: PciFunction, driver: DriverFacts, verdict: str,
                  reasons: list[str]) -> Entry:
        """An entry without an observation: sizes are predicted, and ``memory.source`` says from what."""
        predicted = predict(function.bars, gpu.product, gpu.expected_memory, self.options.layout,
                            self._mig_bug(gpu.address))
        return {"address": function.address, "driver": driver.name, "srcversion": driver.srcversion,
                "implementation": implementation(driver), "api": None, "layout": predicted.layout, "verdict": verdict,
                "reasons": reasons, "evidence": [], "notes": [], "verified_at": None, "from_record": False,
                "memory": predicted.memory, "regions": list(predicted.regions)}
