# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of region_verify that a device without a valid record needs: opens it, judges it, keeps the record."""

from __future__ import annotations

import mmap
from typing import Any, Callable, Optional

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.kernel_log import KernelLog
from .._gpu import sysfs
from .._gpu.child import run_in_child
from .._gpu.model import PciFunction
from .._gpu.ready import readiness_seconds
from .._gpu.select import SelectedGpu
from .._host.acpi import read_firmware_properties
from .device import Kernel, choose_api, open_device
from .driver import PLAIN_DRIVER, DriverFacts, implementation
from .judge import Expectation, Judgement, judge
from .layout import has_mig_bug
from .observe import Observation, observe
from .predict import predict
from .record import FAIL, DeviceInUseError, Fingerprint, VerificationRecord, drop_verification, save_verification

Entry = dict[str, Any]

# What the checks need beside the wait for readiness; on an idle host they take less than one.
_CHECK_SECONDS = 30


class Look:
    """Looks at devices for one run. ``timeout`` in seconds for each, None for as long as the GPU may take; ``log``
    takes lines for the host's journal; ``kernel`` is replaced in tests."""

    def __init__(self, host: Host, layout: str, api: str, probe: str, timeout: Optional[float], now: Callable[[], str],
                 log: Callable[[str], None], x86: bool, kernel: Optional[Kernel] = None) -> None:
        self.host = host
        self.layout = layout
        self.api = api
        self.probe = probe
        self.timeout = timeout
        self.now = now
        self.log = log
        self.x86 = x86
        self.kernel = kernel or Kernel()
        self.opened: list[str] = []

    def open_and_judge(self, gpu: SelectedGpu, function: PciFunction, driver: DriverFacts,
                       fingerprint: Fingerprint) -> Entry:
        """The entry of a device that was opened, or of one that could not be. Raises DeviceInUseError."""
        api: Optional[str] = None
        try:
            api = choose_api(self.host, function, self.api)
            seen = self._look(function, api)
            self.opened.append(gpu.address)
        except DeviceInUseError:
            raise
        except PassthroughError as error:
            if api is not None:
                self.opened.append(gpu.address)
            drop_verification(self.host, gpu.address)
            return {**self.unopened(gpu, function, driver, FAIL, [error.message]), "api": api}
        judgement = judge(seen, self._expectation(gpu, function, driver))
        entry = self._entry(function, driver, judgement, api)
        if judgement.verdict == FAIL:
            drop_verification(self.host, gpu.address)
        else:
            save_verification(self.host, gpu.address, VerificationRecord(fingerprint, entry))
        return entry

    def unopened(self, gpu: SelectedGpu, function: PciFunction, driver: DriverFacts, verdict: str,
                 reasons: list[str]) -> Entry:
        """An entry without an observation: sizes are predicted, and ``memory.source`` says from what."""
        predicted = predict(function.bars, gpu.product, gpu.expected_memory, self.layout, self._mig_bug(gpu.address))
        return {"address": function.address, "driver": driver.name, "srcversion": driver.srcversion,
                "implementation": implementation(driver), "api": None, "layout": predicted.layout, "verdict": verdict,
                "reasons": reasons, "evidence": [], "notes": [], "verified_at": None, "from_record": False,
                "memory": predicted.memory, "regions": list(predicted.regions)}

    def _look(self, function: PciFunction, api: str) -> Observation:
        """Opens the device in a child process: its first access may wait in the kernel, or die by a signal."""
        seconds = self._seconds(function)

        def look() -> Observation:
            with open_device(function, api, self.kernel) as device:
                return observe(device, self.probe, seconds, function.driver != PLAIN_DRIVER)

        def waiting(elapsed: float) -> None:
            self.log(f"{function.address}: not verified after {elapsed:.0f} of at most {seconds:.0f} seconds; the GPU "
                     "may not be ready yet")

        self.log(f"{function.address}: opening, which resets it; this may take {seconds:.0f} seconds")
        return run_in_child(look, seconds, f"The verification of {function.address}", waiting)

    def _seconds(self, function: PciFunction) -> float:
        """The time that one GPU gets."""
        if self.timeout is not None:
            return self.timeout
        return readiness_seconds(self._config(function.address)) + _CHECK_SECONDS

    def _expectation(self, gpu: SelectedGpu, function: PciFunction, driver: DriverFacts) -> Expectation:
        with KernelLog(self.host, gpu.address, all_kept=True) as log:
            kernel_says = log.reason("acting as plain vfio-pci", driver.name or "")
        return Expectation(
            driver=driver, bars=function.bars, layout=self.layout, mig_bug=self._mig_bug(gpu.address),
            product=gpu.product, expected_memory=gpu.expected_memory, page_size=mmap.PAGESIZE,
            firmware_properties=read_firmware_properties(self.host), kernel_says=kernel_says, x86=self.x86)

    def _config(self, address: str) -> bytes:
        return self.host.read_bytes(sysfs.device_path(address, "config")) or b""

    def _mig_bug(self, address: str) -> Optional[bool]:
        return has_mig_bug(self._config(address))

    def _entry(self, function: PciFunction, driver: DriverFacts, judgement: Judgement, api: str) -> Entry:
        return {"address": function.address, "driver": driver.name, "srcversion": driver.srcversion,
                "implementation": judgement.implementation, "api": api, "layout": judgement.layout,
                "verdict": judgement.verdict, "reasons": list(judgement.reasons), "evidence": list(judgement.evidence),
                "notes": list(judgement.notes), "verified_at": self.now(), "from_record": False,
                "memory": judgement.memory, "regions": list(judgement.regions)}
