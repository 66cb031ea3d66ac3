# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Links of the pages in the site, and pages that no list of the index names."""

from __future__ import annotations

from pathlib import Path

import docs_site as site
import pytest


@pytest.mark.parametrize(("origin", "target", "place"), [
    ("docs/fleet.md", "test-report.md", "test-report.md"),
    ("docs/fleet.md", "kernel-module.md#speed", "kernel-module.md#speed"),
    ("docs/bar2.md", "pictures/bars-96.svg", "pictures/bars-96.svg"),
    ("docs/fleet.md", "../tests/lab/README.md#use", "lab.md#use"),
    ("docs/fleet.md", "../roles/gpu_bind/README.md", "collection/gpu_bind_role.rst"),
    ("docs/fleet.md", "../plugins/modules/gpu_info.py", "collection/gpu_info_module.rst"),
    ("tests/lab/README.md", "../../docs/binding.md", "binding.md"),
])
def test_links_lead_to_pages(origin: str, target: str, place: str) -> None:
    assert site.place_in_site(Path(origin), target) == place


def test_a_link_to_a_file_without_a_page_is_an_error() -> None:
    with pytest.raises(SystemExit, match="links to ../Makefile"):
        site.place_in_site(Path("docs/fleet.md"), "../Makefile")


def test_pages_that_no_list_names_are_in_the_last_one() -> None:
    index = "```{toctree}\nfleet\ncollection/index\n```\n```{toctree}\n<!-- other pages -->\n```\n"
    assert site.with_other_pages(index, ["fleet", "index", "new"]).endswith("```{toctree}\nnew\n```\n")


def test_pages_of_the_collection_are_adapted() -> None:
    page = (".. contents::\n   :local:\n   :depth: 1\n\nSee :ref:`here <common_return_values>`.\n\n"
            ".. toctree::\n\n    gpu_info_module\n    gpu_bind_role\n")
    assert site.for_this_site(page) == (
        "\nSee `here <https://docs.ansible.com/ansible/latest/reference_appendices/common_return_values.html>`__.\n\n"
        ".. toctree::\n\n    gpu_info <gpu_info_module>\n    gpu_bind <gpu_bind_role>\n")
