# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""The controller's side of the behaviour tests: hosts, drivers, which tests run when, and what came of them."""
