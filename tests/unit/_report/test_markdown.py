# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ticket as a Markdown parser reads it: its parts, its cells, and that text of a host is text and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.fields import clean
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.fleet import Fleet, Problem
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.markdown import (
    MAX_HOSTS,
    MAX_ITEMS,
    escape,
    markdown,
)
from ansible_collections.nvgrace.passthrough.plugins.module_utils._report.record import Check, Record
from ansible_collections.nvgrace.passthrough.tests.unit._report.records import (
    ADDRESS,
    GIB,
    NOW,
    PRODUCT,
    check,
    device,
    fleet,
    gpu,
    record,
)

NO_WIDTH = "\u200b"
# What GitHub allows in one comment.
ROOM = 65536


class Document:
    """The parts of a document by their headings; "" is what comes before the first of the second level."""

    def __init__(self, text: str) -> None:
        assert text.endswith("\n") and not text.endswith("\n\n")
        self.title = ""
        self.paragraphs: dict[str, list[str]] = {}
        self.lists: dict[str, list[str]] = {}
        self.tables: dict[str, list[list[str]]] = {}
        tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
        assert {token.type for token in tokens if token.type not in KNOWN} == set()
        part, kind = "", ""
        for before, token in zip([tokens[0], *tokens], tokens):
            if token.type == "list_item_open":
                kind = "list"
            elif token.type == "bullet_list_close":
                kind = ""
            elif token.type == "tr_open":
                self.tables.setdefault(part, []).append([])
            elif token.type == "inline":
                shown = text_of(token)
                if before.type == "heading_open" and before.tag == "h1":
                    self.title = shown
                elif before.type == "heading_open":
                    part = shown
                    self.paragraphs[part] = self.paragraphs.get(part, [])
                elif before.type in ("td_open", "th_open"):
                    self.tables[part][-1].append(shown)
                else:
                    (self.lists if kind else self.paragraphs).setdefault(part, []).append(shown)


KNOWN = {"inline", *(f"{name}_{end}" for end in ("open", "close") for name in (
    "heading", "paragraph", "bullet_list", "list_item", "table", "thead", "tbody", "tr", "th", "td"))}


def text_of(inline: Token) -> str:
    """As it is shown. Anything but text, bold text and a line's end that we wrote is somebody else's markup."""
    shown = ""
    for token in inline.children or []:
        if token.type == "html_inline":
            assert token.content == "<br>"
            shown += "\n"
        else:
            assert token.type in ("text", "strong_open", "strong_close"), token.type
            shown += token.content
    assert not re.search("[@#][0-9A-Za-z_-]", shown)
    return shown.replace(NO_WIDTH, "")


def read(found: Fleet) -> Document:
    return Document(markdown(found))


def test_head_counts_outcomes_and_names_what_is_due() -> None:
    found = read(fleet(record("grace1", reboot_required=True), record("grace2", reboot_required=True), record(
        "grace3", failure="No.", gpus=[], devices=[], domain={"name": "vm1", "restart_required": True})))
    assert found.title == "GPU passthrough, 2026-11-20 13:00 UTC"
    assert found.paragraphs[""] == ["3 hosts with 2 GPUs: 1 failed, 2 verified.",
                                    "A reboot is due on 2 hosts: grace1, grace2.",
                                    "A restart is due of 1 domain: vm1 on grace3."]


def test_a_fleet_where_all_is_well_has_three_parts() -> None:
    found = read(fleet(record()))
    assert found.paragraphs == {"": ["1 host with 1 GPU: 1 verified."], "Products": [], "Hosts": [],
                                "Seconds of the stages": []}
    assert found.lists == {}
    assert found.tables == {
        "Products": [["Product", "GPUs", "Hosts", "Drivers", "Memory"],
                     [PRODUCT, "1", "1", "nvgrace_gpu_vfio_pci A1B2", "96 GiB"]],
        "Hosts": [["Host", "Outcome", "Kernel", "GPUs", "Verdict", "Memory", "Seconds"],
                  ["grace1", "verified", "7.3.4+deb13-arm64", PRODUCT, "ok", "96 GiB", "2.5"]],
        "Seconds of the stages": [["Stage", "Hosts", "Median", "Longest", "Slowest host"],
                                  ["gpu_verify", "1", "2.5", "2.5", "grace1"]]}


def test_without_a_record_it_says_so() -> None:
    found = read(fleet(expected=["grace1"]))
    assert found.paragraphs == {"": ["There is no record of a host."], "What this report lacks": []}
    assert found.lists == {"What this report lacks": ["grace1: There is no record of this host yet."]}


def test_hosts_that_stopped_say_why_and_what_became_of_them() -> None:
    found = read(fleet(
        record("grace1", failure="Bind: held\nby pid 7.", after_failure="It is given back.", quarantined=True),
        record("grace2", failure="Verify: BAR4 is short.")))
    assert found.lists["Hosts that stopped"] == [
        "grace2 (failed): Verify: BAR4 is short.",
        "grace1 (quarantined): Bind: held by pid 7. It is given back."]


@pytest.mark.parametrize(("age", "expected"), [
    (timedelta(hours=25, minutes=59), "25 hours"), (timedelta(hours=47), "47 hours"), (timedelta(days=2), "2 days"),
    (timedelta(days=9, hours=23), "9 days"),
])
def test_what_the_report_lacks(age: timedelta, expected: str) -> None:
    found = read(fleet(record("grace1"), record("grace2", NOW - age), problems=[Problem("x.json", "It is not JSON.")]))
    assert found.lists["What this report lacks"] == [
        "x.json: It is not JSON.",
        f"grace2: Its record is of {NOW - age:%Y-%m-%d %H:%M} UTC, {expected} before the newest one: the last run did "
        "not reach this host."]
    assert [row[:2] for row in found.tables["Hosts"][1:]] == [["grace1", "verified"], ["grace2", "verified, old"]]


def test_findings_have_reasons_in_lines_and_the_first_hosts() -> None:
    checks = [check("memlock", "warn", f"{max(number, 3)} KiB.", "Raise it.") for number in range(9)]
    found = read(fleet(*(record(f"grace{number}", checks=[item]) for number, item in enumerate(checks))))
    assert found.tables["Findings"][1:] == [[
        "memlock", "warn", "9 hosts: grace0, grace1, grace2, grace3, grace4 and 4 more",
        "3 KiB.\n4 KiB.\n5 KiB.\nand 3 other reasons", "Raise it."]]


def test_outliers_are_sentences() -> None:
    found = read(fleet(record("odd", devices=[device(memory=95 * GIB)]), *(record(f"usual{n}") for n in range(3))))
    assert found.lists["GPUs that differ from others of the product"] == [
        f"odd, {ADDRESS}: GPU memory is 95 GiB (102005473280 bytes); 3 of 4 {PRODUCT} in this fleet have 96 GiB "
        "(103079215104 bytes)."]


def test_gpus_of_a_host_are_counted() -> None:
    gpus = [gpu("0009:01:00.0"), gpu("0019:01:00.0"), gpu("0029:01:00.0", product="B40")]
    devices = [device("0009:01:00.0"), device("0019:01:00.0", verdict="fail")]
    found = read(fleet(record(gpus=gpus, devices=devices, seconds=None)))
    assert found.tables["Hosts"][1] == ["grace1", "incomplete", "7.3.4+deb13-arm64", f"2 x {PRODUCT}, B40",
                                        "ok, fail, not verified", "2 x 96 GiB", ""]
    assert found.tables["Products"][1:] == [[PRODUCT, "2", "1", "2 x nvgrace_gpu_vfio_pci A1B2", "2 x 96 GiB"],
                                            ["B40", "1", "1", "nvidia", ""]]
    assert "Seconds of the stages" not in found.tables


def large(count: int) -> Fleet:
    """Each tenth host failed with a sentence of its own."""
    addresses = [f"000{number}:01:00.0" for number in range(4)]
    one = record(gpus=[gpu(address) for address in addresses], devices=[device(address) for address in addresses])
    return fleet(*(replace(
        one, host=f"rack{number // 40}-grace{number}", outcome="verified" if number % 10 else "failed",
        failure="" if number % 10 else f"Bind: held by pid {number}.",
        checks=(Check("memlock", "warn", f"The limit is {number} KiB.", "Raise it.", False),))
        for number in range(count)))


def test_a_thousand_hosts_fit_into_a_ticket() -> None:
    text = markdown(large(1000))
    assert len(text) < ROOM
    found = Document(text)
    assert len(found.tables["Hosts"]) == 1 + MAX_HOSTS
    assert found.paragraphs["Hosts"] == ["and 750 hosts more"]
    assert [row[1] for row in found.tables["Hosts"][1:]] == ["failed"] * 100 + ["verified"] * 150
    assert len(found.lists["Hosts that stopped"]) == MAX_ITEMS + 1
    assert found.lists["Hosts that stopped"][-1] == "and 50 hosts more"


@pytest.mark.parametrize(("count", "last"), [
    (MAX_ITEMS, f"{MAX_ITEMS - 1}.json: No."), (MAX_ITEMS + 1, "and 1 problem more"),
])
def test_lists_end(count: int, last: str) -> None:
    found = read(fleet(problems=[Problem(f"{number}.json", "No.") for number in range(count)]))
    assert found.lists["What this report lacks"][-1] == last


@pytest.mark.parametrize(("length", "expected"), [(500, "x" * 500), (501, f"{'x' * 500} (...)")])
def test_a_long_sentence_is_cut(length: int, expected: str) -> None:
    (line,) = read(fleet(record(failure="x" * length))).lists["Hosts that stopped"]
    assert line == f"grace1 (failed): {expected}"


@pytest.mark.parametrize(("count", "names", "reasons"), [
    (3, "3 hosts: h0, h1, h2", "0.\n1.\n2."),
    (4, "4 hosts: h0, h1, h2, h3", "0.\n1.\n2.\nand 1 other reason"),
    (6, "6 hosts: h0, h1, h2, h3, h4 and 1 more", "0.\n1.\n2.\nand 3 other reasons"),
])
def test_names_and_reasons_end(count: int, names: str, reasons: str) -> None:
    found = read(fleet(*(record(f"h{n}", checks=[check("kvm", "warn", f"{n}.")]) for n in range(count))))
    assert found.tables["Findings"][1] == ["kvm", "warn", names, reasons, ""]


@pytest.mark.parametrize(("part", "record_of", "what"), [
    ("Findings", lambda number: record(checks=[check(f"c{n}", "fail") for n in range(number)]), "findings"),
    ("Products", lambda number: record(gpus=[gpu(f"{n:04x}:01:00.0", product=f"p{n}") for n in range(number)],
                                       devices=[]), "products"),
])
def test_tables_end(part: str, record_of: Callable[[int], Record], what: str) -> None:
    whole, cut = (read(fleet(record_of(count))) for count in (MAX_ITEMS, MAX_ITEMS + 2))
    assert [len(found.tables[part]) for found in (whole, cut)] == [MAX_ITEMS + 1] * 2
    assert [found.paragraphs[part] for found in (whole, cut)] == [[], [f"and 2 {what} more"]]


def test_numbers_are_aligned_at_the_right() -> None:
    rules = [line for line in markdown(fleet(record(checks=[check("kvm", "fail")]))).split("\n") if "| -" in line]
    assert rules == ["| --- | --- | --- | --- | --- |", "| --- | ---: | ---: | --- | --- |",
                     "| --- | --- | --- | --- | --- | --- | ---: |", "| --- | ---: | ---: | ---: | --- |"]


@pytest.mark.parametrize("rows", ["Findings", "Products", "Hosts", "Seconds of the stages"])
def test_every_row_has_the_cells_of_the_header(rows: str) -> None:
    """In the text itself: a parser fills up a row that lacks cells, and cuts one that has too many."""
    text = markdown(fleet(*(record(name, checks=[check("a|b", "fail", "|", "x\\|y")]) for name in HOSTILE)))
    lines = text.split(f"## {rows}\n\n")[1].split("\n\n")[0].rstrip("\n").split("\n")
    cells = [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines]
    assert len(lines) > 2 and set(cells) == {cells[0]}


HOSTILE = [
    "a|b", "a\\|b", "a\\", "`code`", "``", "```\ncode", "line\n\n# heading", "- item", "1. item", "> quote", "# head",
    "<script>alert(1)</script>", "<!--", "<br>", "<b", "&lt;", "&#35;x", "[text](https://example.org)", "![x](y)",
    "[x]: /y",
    "https://example.org", "www.example.org", "me@example.org", "@somebody", "#12", "owner/repo#12", "<https://x.org>",
    "**bold**", "*", "_em_", "__x__", "a_b_c", "_", "~~gone~~", "$x$", "| --- |", "---", "===", "\\<b>", "a**", "* *",
    "\u00a0x\u00a0", "x\u200b", "Stra\u00dfe_", "[ ] task", "\ttab\tx", "\x85x", "\ufffd",
]


@settings(max_examples=150, deadline=None)
@given(text=st.sampled_from(HOSTILE)
       | st.text(alphabet="|\\`*_[]<>&~$#@!:/w. \na1-", min_size=1, max_size=30).filter(str.strip)
       | st.text(min_size=1, max_size=30).filter(str.strip))
def test_any_text_is_shown_as_it_is(text: str) -> None:
    odd = device(srcversion=text)
    found = read(fleet(
        record(text, NOW + timedelta(minutes=1), gpus=[gpu(product=text)], devices=[odd], failure=text, domain={
            "name": text, "restart_required": True}, checks=[check(text, "fail", text, text)], reboot_required=True),
        record("old", NOW - timedelta(days=9), gpus=[], devices=[]), problems=[Problem(clean(text), clean(text))]))
    line = " ".join(clean(text).split()).replace(NO_WIDTH, "")
    assert f"A reboot is due on 1 host: {line}." in found.paragraphs[""]
    assert f"A restart is due of 1 domain: {line} on {line}." in found.paragraphs[""]
    assert found.lists["Hosts that stopped"] == [f"{line} (failed): {line}"]
    assert found.lists["What this report lacks"][0] == f"{line}: {line}"
    assert found.tables["Findings"][1] == [line, "fail", f"1 host: {line}", line, line]
    assert found.tables["Products"][1][0] == line
    assert found.tables["Products"][1][3] == " ".join(f"nvgrace_gpu_vfio_pci {line}".split())
    assert [found.tables["Hosts"][1][cell] for cell in (0, 3)] == [line, line]
    assert found.tables["Seconds of the stages"][1][4] in (line, "old")


@pytest.mark.parametrize(("text", "expected"), [
    ("nvgrace_gpu_vfio_pci 7.3.4+deb13-arm64 (96 GiB)", "nvgrace_gpu_vfio_pci 7.3.4+deb13-arm64 (96 GiB)"),
    ("_x_ a__b", "\\_x\\_ a\\_\\_b"),
    ("a|b\nc", "a\\|b c"),
    ("https://x.org www.x.org", "https\\://x.org www\\.x.org"),
    ("me@x.org #12 # 12", "me@&#8203;x.org #&#8203;12 # 12"),
    ("$x$ <b> `c` &amp; [d] ~e~ *f*", "\\$x\\$ \\<b\\> \\`c\\` \\&amp; \\[d\\] \\~e\\~ \\*f\\*"),
])
def test_escape_leaves_readable_what_means_nothing(text: str, expected: str) -> None:
    assert escape(text) == expected
