# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only the next boot brings into effect, kept in a file that the boot takes away.

The files of a host say how it will boot, and the kernel how it has. That a difference between them is ours, and a
reboot is due for it, neither of them says: a later run could not tell it from what an operator did by hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .._core.host import Host
from .modprobe import normal

PATH = "/run/nvgrace-passthrough.until-boot"
_MARKS = ("argument ", "modprobe.d ")


@dataclass(frozen=True)
class UntilBoot:
    """``leaving``: kernel arguments that were ours and are still in effect; ``options``: lines of modprobe.d that came
    when their module was loaded already."""

    leaving: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def read_until_boot(host: Host) -> UntilBoot:
    """What earlier runs of this boot noted."""
    lines = (host.read_text(PATH) or "").splitlines()
    return UntilBoot(*(tuple(line[len(mark):] for line in lines if line.startswith(mark)) for mark in _MARKS))


def note_until_boot(host: Host, value: UntilBoot) -> None:
    """Writes the file anew, or takes it away where there is nothing to say."""
    lines = [mark + text for mark, texts in zip(_MARKS, (value.leaving, value.options)) for text in texts]
    if lines:
        host.write_atomic(PATH, ("\n".join(lines) + "\n").encode())
    else:
        host.remove(PATH)


def options_in_effect(host: Host, lines: Iterable[str]) -> frozenset[str]:
    """Those of the lines that ask nothing of a module which it does not have: it is not loaded, or shows the values."""
    return frozenset(line for line in lines if _in_effect(host, line.split()))


def _in_effect(host: Host, words: list[str]) -> bool:
    module = f"/sys/module/{normal(words[1])}"
    if words[0] != "options" or not host.is_dir(module):
        return True
    for word in words[2:]:
        name, equals, value = word.partition("=")
        shown = host.read_text(f"{module}/parameters/{normal(name)}")
        if shown is None or _plain(shown) != _plain(value if equals else "1"):
            return False
    return True


def _plain(value: str) -> str:
    """One spelling for what the kernel's bool and integer parameters take in several."""
    words = {"y": "1", "yes": "1", "on": "1", "true": "1", "n": "0", "no": "0", "off": "0", "false": "0"}
    text = value.strip().lower()
    try:
        return words.get(text) or str(int(text, 0))
    except ValueError:
        return text
