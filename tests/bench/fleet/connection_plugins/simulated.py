# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible.builtin.local, in the mount namespace of a simulated host: every path there is the host's own."""

from __future__ import annotations

import os
import resource
import shlex
from typing import Any, Optional

from ansible.errors import AnsibleError
from ansible.plugins.connection.local import Connection as LocalConnection

DOCUMENTATION = """
name: simulated
short_description: Runs in the mount namespace of a simulated host
description: For the fleet of nvgrace.passthrough's benchmarks.
author: The nvgrace.passthrough contributors
options:
  namespace:
    description: File of the host's mount namespace.
    vars: [{name: fleet_namespace}]
    required: true
  login:
    description: User of the host to work as; root unless given.
    vars: [{name: fleet_login}]
    default: root
  become_success_timeout:
    description: Seconds to wait for become, as ansible.builtin.local has it.
    type: int
    default: 60
  become_strip_preamble:
    description: Whether output before that of become is dropped, as ansible.builtin.local has it.
    type: bool
    default: true
extends_documentation_fragment: [connection_pipelining]
"""

# What the commands on the hosts have used, so that it can be told from the controller's own work.
_SECONDS = os.environ.get("NVGRACE_HOST_SECONDS", "")


class Connection(LocalConnection):
    """As a host that is reached over ssh: nothing but its standard streams is shared with the controller."""

    transport = "simulated"
    has_pipelining = True

    def set_options(self, *arguments: Any, **options: Any) -> None:
        super().set_options(*arguments, **options)
        self.default_user = self.get_option("login")  # who become starts from

    def exec_command(self, cmd: str, in_data: Optional[bytes] = None, sudoable: bool = True) -> Any:
        login = self.get_option("login")
        argv = ["nsenter", f"--mount={self.get_option('namespace')}", "--wd=/", "--",
                "setpriv", f"--reuid={login}", f"--regid={login}", "--init-groups", "--reset-env",
                "/bin/sh", "-c", cmd]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            return super().exec_command(f"exec {shlex.join(argv)}", in_data=in_data, sudoable=sudoable)
        finally:
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            _note(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    def put_file(self, in_path: str, out_path: str) -> None:
        with open(in_path, "rb") as stream:
            status, _stdout, stderr = self.exec_command(f"cat > {shlex.quote(out_path)}", stream.read(), False)
        if status:
            raise AnsibleError(f"{out_path} cannot be written: {stderr!r}")

    def fetch_file(self, in_path: str, out_path: str) -> None:
        status, stdout, stderr = self.exec_command(f"cat {shlex.quote(in_path)}", None, False)
        if status:
            raise AnsibleError(f"{in_path} cannot be read: {stderr!r}")
        with open(out_path, "wb") as stream:
            stream.write(stdout)


def _note(seconds: float) -> None:
    if _SECONDS:
        handle = os.open(_SECONDS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, f"{seconds:.4f}\n".encode())
        finally:
            os.close(handle)
