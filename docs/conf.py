# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sphinx's configuration. ``make docs`` (tests/tools/docs_site.py) copies it with the pages to .build/site."""

from __future__ import annotations

project = "nvgrace.passthrough"
author = "Contributors to the nvgrace.passthrough project"
copyright = author
extensions = ["myst_parser", "sphinx_antsibull_ext", "sphinx_copybutton"]
html_theme = "furo"
html_title = "nvgrace.passthrough"
html_show_sourcelink = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]
# Headings get anchors as forges give them, so that links work in both places.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
copybutton_prompt_text = r"\$ |# "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"
highlight_language = "text"
