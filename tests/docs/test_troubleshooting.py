# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each message of the code has an entry, each entry says everything, and what it names is there."""

from __future__ import annotations

import re

import pytest
from entries import PAGE, PARTS, ROOT, Entry, entries, matches, phrases, quotes, spoken
from messages import HOLE, Message, all_messages, kernel_messages, plugin_messages, task_messages

ENTRIES = entries(PAGE.read_text(encoding="utf-8"))
MESSAGES = list({message.text: message for message in all_messages()}.values())
PHRASES = {message.text: phrases(message.text) for message in MESSAGES}
FAULTS = (ROOT / "molecule" / "faults" / "expected.yml").read_text() + (
    ROOT / "molecule" / "faults" / "molecule.yml").read_text()


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: f"{message.where} {message.shown()[:60]}")
def test_the_message_has_an_entry(message: Message) -> None:
    assert [entry.title for entry in ENTRIES if entry.has(message.text)], message.shown()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.title)
def test_the_entry_says_everything(entry: Entry) -> None:
    assert tuple(entry.parts) == PARTS
    assert "`" in entry.parts["Check"]
    gone = [pattern for pattern in entry.patterns if not any(matches(pattern, item.text) for item in MESSAGES)]
    assert entry.patterns and gone == []


def own_phrases(entry: Entry) -> set[str]:
    """Phrases of the entry's messages that those of no other entry have."""
    mine = {item.text for item in MESSAGES if entry.has(item.text)}
    others = set().union(*(PHRASES[item.text] for item in MESSAGES if item.text not in mine))
    return set().union(*(PHRASES[text] for text in mine)) - others


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.title)
def test_what_makes_the_message_is_there(entry: Entry) -> None:
    """A fault is one of the scenario; a test has words of a message of this entry."""
    named = re.findall(r"`([^`]+)`", entry.parts["Made by"])
    assert named or entry.parts["Made by"] == "nothing yet."
    for name in named:
        if "/" in name:
            source = spoken((ROOT / name).read_text())
            assert any(phrase in source for phrase in own_phrases(entry)) or any(
                quotes(source, pattern) for pattern in entry.patterns), name
        else:
            assert re.search(rf"\b{name}\b", FAULTS), name


def test_messages_of_all_kinds_are_found() -> None:
    """The tool sees messages in each place that has some; the numbers only grow with the code."""
    plugins = [message.text for message in plugin_messages()]
    assert len(plugins) > 250 and len(kernel_messages()) > 8 and len(task_messages()) > 5
    assert "This module must run as root: set become: true." in plugins
    assert any(text.endswith("is still blocked in the kernel as process " + HOLE + ": see the kernel log (dmesg).")
               for text in plugins)


@pytest.mark.parametrize(("pattern", "text", "fits"), [
    ("GPU ... is gone", f"GPU {HOLE} is gone: look.", True),
    ("... is gone", f"{HOLE} is gone", True),
    ("GPU ... is gone", f"The GPU {HOLE} is gone", False),
    ("GPU ... has gone", f"GPU {HOLE} is gone", False),
])
def test_matching(pattern: str, text: str, fits: bool) -> None:
    assert matches(pattern, text) is fits


@pytest.mark.parametrize(("pattern", "source", "found"), [
    ("The domain ... is running: shut it down", 'match="The domain b is running"', True),
    ("The domain ... is running: shut it down", 'match="The domain b was running"', False),
    ("... is: gone", "a b c is", False),
])
def test_quoting(pattern: str, source: str, found: bool) -> None:
    assert quotes(source, pattern) is found
