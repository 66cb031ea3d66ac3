# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of host_info: nothing but the survey's answer, where there is one."""

from __future__ import annotations

from ansible_collections.nvgrace.passthrough.plugins.plugin_utils.stage import StageAction


class ActionModule(StageAction):
    """nvgrace.passthrough.host_info"""

    NAME = "host_info"
