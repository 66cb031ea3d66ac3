# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""How memory is mapped, cacheable or write-combined: asked from the kernel by probes on the functions that map it."""

from __future__ import annotations

import os
import re
import unittest
from pathlib import Path

from contract import contract, ours_only
from hostside import ARM64, EXPECTED, KERNEL, LAYOUT, MIB, PAGE, DeviceTest

TRACING = Path("/sys/kernel/tracing")
BTF = Path("/sys/kernel/btf/vmlinux")
GROUP = "nvgrace_test"
EVENTS = {
    "kernel": "memremap base=$arg1 flags=$arg3",
    "huge": "vmf_insert_pfn_pmd prot=vmf->vma->vm_page_prot.pgprot flags=vmf->vma->vm_flags",
    "page": "vmf_insert_pfn_prot prot=vma->vm_page_prot.pgprot flags=vma->vm_flags",
}
PMD = 2 * MIB
MEMREMAP_WB, MEMREMAP_WC = 1, 4
VM_ALLOW_ANY_UNCACHED = 1 << 39
# Where a page table entry has its memory type, and the two types: arm64's index into MAIR, amd64's PWT and PCD.
TYPE, CACHEABLE, WRITE_COMBINED = (7 << 2, 0 << 2, 2 << 2) if ARM64 else (3 << 3, 0 << 3, 1 << 3)


class Caching(DeviceTest):
    """usemem, and with layout=bar2 all memory, is cacheable; resmem is write-combined."""

    def probe(self, *names: str) -> None:
        """Set probes, for this process alone."""
        if not (TRACING / "kprobe_events").exists():
            self.skipTest("this kernel is built without kprobes")
        self.addCleanup(self.remove)
        for name in names:
            self.append("kprobe_events", f"p:{GROUP}/{name} {EVENTS[name]}")
        (TRACING / "events" / GROUP / "filter").write_text(f"common_pid == {os.getpid()}", encoding="ascii")
        (TRACING / "trace").write_text("", encoding="ascii")
        (TRACING / "events" / GROUP / "enable").write_text("1", encoding="ascii")

    def append(self, name: str, text: str) -> None:
        """Append a line to a file of tracefs."""
        fd = os.open(TRACING / name, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, text.encode() + b"\n")
        finally:
            os.close(fd)

    def remove(self) -> None:
        """Remove the probes that are there."""
        directory = TRACING / "events" / GROUP
        if directory.exists():
            (directory / "enable").write_text("0", encoding="ascii")
            for name in EVENTS:
                if (directory / name).exists():
                    self.append("kprobe_events", f"-:{GROUP}/{name}")

    def seen(self, event: str) -> list:
        """Return the numbers that the probes have noted since they were asked last."""
        text = (TRACING / "trace").read_text(encoding="ascii")
        (TRACING / "trace").write_text("", encoding="ascii")
        lines = [line for line in text.splitlines() if f" {event}: " in line]
        return [[int(word, 0) for word in re.findall(r"=(0x[0-9a-f]+|\d+)", line)] for line in lines]

    def write_combined(self, index: int) -> bool:
        """Return whether the contract has the region so."""
        return index == 2 and LAYOUT == "mainline"

    @contract("behaviour-caching")
    def test_mappings_of_the_user(self) -> None:
        """By 2 MiB and by page."""
        if KERNEL < (6, 6) or not BTF.exists():
            self.skipTest("this kernel's probes know no types")
        self.probe("huge", "page")
        for index in EXPECTED:
            for event, start, length in (("huge", 0, 2 * PMD), ("page", PAGE, PAGE)):
                self.seen(event)
                with self.device.map(index, start, length, alignment=PMD) as mapping:
                    mapping.read(0, 1)
                found = self.seen(event)
                self.assertTrue(found, f"region {index} is not mapped by {event}")
                wanted = WRITE_COMBINED if self.write_combined(index) else CACHEABLE
                for prot, flags in found:
                    self.assertEqual(prot & TYPE, wanted, hex(prot))
                    if ARM64:
                        self.assertEqual(bool(flags & VM_ALLOW_ANY_UNCACHED), self.write_combined(index), hex(flags))

    @contract("behaviour-caching")
    @ours_only("the kernel's own driver uses ioremap_wc for resmem, which is as good")
    def test_mapping_of_the_kernel(self) -> None:
        """For read and write."""
        self.probe("kernel")
        for index, expected in EXPECTED.items():
            self.seen("kernel")
            self.device.read(index, 0, 1)
            flags = MEMREMAP_WC if self.write_combined(index) else MEMREMAP_WB
            self.assertEqual(self.seen("kernel"), [[expected.base, flags]])


if __name__ == "__main__":
    unittest.main(verbosity=2)
