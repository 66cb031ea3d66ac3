# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The kernel log of the whole run; the runner looks at that of each test on its own."""

from __future__ import annotations

import subprocess
import unittest

from runner import ALARM


class KernelLog(unittest.TestCase):
    """After all that was done."""

    def test_nothing_alarming(self) -> None:
        """No BUG, no warning with a stack, no lockdep report since boot."""
        log = subprocess.run(["dmesg"], check=True, stdout=subprocess.PIPE).stdout.decode()
        self.assertEqual([line for line in log.splitlines() if ALARM.search(line)], [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
