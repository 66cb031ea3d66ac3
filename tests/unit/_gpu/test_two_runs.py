# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two runs of gpu_driver at once on one host, in processes of their own: the second waits, and then finds all done."""

from __future__ import annotations

import os
from pathlib import Path

from ansible_collections.nvgrace.passthrough.plugins.module_utils._core.runner import host_lock
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.driver import bind_gpus
from ansible_collections.nvgrace.passthrough.plugins.module_utils._gpu.options import DriverOptions
from ansible_collections.nvgrace.passthrough.tests.unit._gpu.trees import HGX, hgx_h100

WISH = DriverOptions(gpus=[{"address": address} for address in HGX[:4]], timeout=20)


def test_runs_never_interleave(tmp_path: Path) -> None:
    host = hgx_h100(tmp_path)
    bind_gpus(host, WISH)
    alone = host.log()
    host = hgx_h100(tmp_path / "shared")
    pids = []
    for _number in range(3):
        pid = os.fork()
        if pid == 0:
            with host_lock(host):
                changed = bind_gpus(host, WISH)["changed"]
            os._exit(10 + changed)
        pids.append(pid)
    statuses = sorted(os.WEXITSTATUS(os.waitpid(pid, 0)[1]) for pid in pids)
    assert statuses == [10, 10, 11]
    assert host.log() == alone
