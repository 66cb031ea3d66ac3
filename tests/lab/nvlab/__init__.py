# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The emulated Grace host: builds its image, starts it under QEMU and plays its GPUs."""
