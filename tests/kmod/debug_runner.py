# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""runner.py for tests that open the device by its character device and iommufd."""

from __future__ import annotations

import sys
import unittest

import cdev_client

cdev_client.take_over()

# after the client is taken over
import runner  # noqa: E402
import test_mmap  # noqa: E402

# The one test that asks for what only the container of the group API has.
test_mmap.Mmap.test_dma_of_a_mapping = unittest.skip(  # type: ignore[method-assign]
    "iommufd maps no GPU memory: debug_iommufd has the test of that")(test_mmap.Mmap.test_dma_of_a_mapping)

if __name__ == "__main__":
    sys.exit(runner.main(sys.argv[1:]))
