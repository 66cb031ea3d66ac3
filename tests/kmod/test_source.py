# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""What the review asked of the driver's text. Runs on a copy of the sources, on the host as well as anywhere else."""

from __future__ import annotations

import os
import re
import unittest
from pathlib import Path

from contract import contract, ours_only

SOURCES = Path(os.environ.get("GPU_SOURCES", str(Path(__file__).resolve().parents[2] / "files" / "kmod")))
OURS_ONLY = ours_only("a demand on this driver's own source")
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


def texts() -> dict:
    """Return the C files by name."""
    found = {path.name: path.read_text(encoding="utf-8") for path in sorted(SOURCES.glob("*.[ch]"))}
    if "rw.c" not in found:
        raise AssertionError(f"no sources of the driver in {SOURCES}")
    return found


def commented_functions(text: str) -> list:
    """Return (comment, name) of each function with a comment right before it."""
    return re.findall(r"/\*((?:(?!\*/).)*)\*/\n(?:static )?[a-z_ ]+\*?\b(\w+)\(", text, re.DOTALL)


class Review(unittest.TestCase):
    """Rows that are about words and structure."""

    @contract("review-6")
    @OURS_ONLY
    def test_no_comment_calls_an_access_out_of_scope(self) -> None:
        """Nor says what a read of BAR2 implies."""
        for name, text in texts().items():
            for comment in COMMENT.findall(text):
                self.assertNotRegex(comment, r"(?i)out[ -]of[ -]scope|\bimpl(y|ies)\b", name)

    @contract("review-7")
    @OURS_ONLY
    def test_one_helper_maps_memory(self) -> None:
        """memremap is called once, with the lock held, and both directions use its caller."""
        files = texts()
        code = {name: COMMENT.sub("", text) for name, text in files.items()}
        calls = [name for name, text in code.items() for _ in re.findall(r"\bmemremap\(", text)]
        self.assertEqual(calls, ["memory.c"])
        within = r"(?:(?!\n}).)*"  # one function
        locked = rf"mutex_lock\({within}\bmemremap\({within}mutex_unlock\("
        self.assertTrue(re.search(locked, code["memory.c"], re.DOTALL))
        self.assertEqual(code["rw.c"].count("nvgrace_map_memory("), 1)

    @contract("review-8")
    @OURS_ONLY
    def test_comments_of_read_and_write_are_not_mixed_up(self) -> None:
        """Who reads is not said to write, nor the other way round."""
        seen = 0
        for name, text in texts().items():
            for comment, function in commented_functions(text):
                for own, other in (("read", "write"), ("write", "read")):
                    if own in function and other not in function and other in comment:
                        self.assertIn(own, comment, f"{name}: {function}")
                    seen += own in function
        self.assertGreater(seen, 0)

    @contract("review-2")
    @OURS_ONLY
    def test_no_text_says_that_it_is_for_virtual_machines_only(self) -> None:
        """VFIO is not only for them."""
        for name, text in texts().items():
            self.assertNotRegex(text, r"(?i)\bVMs? only|only for (VMs?|virtual machines?)|required to assign", name)


if __name__ == "__main__":
    unittest.main(verbosity=2)
